use super::*;

/// The defaults.
pub(in crate::board) fn settings() -> BoardSettings {
    crate::config::Config::load(&crate::config::Layers::default(), []).unwrap().board
}

fn refused(change: impl FnOnce(&mut BoardSettings)) -> String {
    let mut settings = settings();
    change(&mut settings);
    settings.validate().err().unwrap_or_default()
}

#[test]
fn off_the_loopback_nothing_is_served_without_authentication_and_a_word_on_tls_and_hosts() {
    assert_eq!(refused(|_| {}), "");
    let off = |auth, plain, hosts: &[&str]| {
        refused(|it| {
            it.listen = "0.0.0.0:9465".into();
            it.auth = auth;
            it.token_file = "token".into();
            it.proxy_addresses = vec![[10, 0, 0, 1].into()];
            it.allow_plain_http = plain;
            it.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        })
    };
    assert!(off(AuthKind::None, true, &["board"]).contains("board.auth"));
    for auth in [AuthKind::Token, AuthKind::ProxyHeaders] {
        assert!(off(auth, false, &["board"]).contains("board.allow_plain_http"));
        assert!(off(auth, true, &[]).contains("board.hosts"));
        assert_eq!(off(auth, true, &["board"]), "");
    }
    assert_eq!(refused(|it| it.listen = "[::1]:9465".into()), "");
}

#[test]
fn authentication_without_what_it_needs_is_refused_on_the_loopback_too() {
    assert!(refused(|it| it.auth = AuthKind::Token).contains("board.token_file"));
    assert!(refused(|it| it.auth = AuthKind::ProxyHeaders).contains("board.proxy_addresses"));
    assert!(refused(|it| it.listen = "board".into()).contains("board.listen"));
    assert!(refused(|it| it.max_embryos = 0).contains("board.max_embryos"));
}
