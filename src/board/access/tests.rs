use super::*;
use crate::board::settings::tests::settings;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, "localhost:9465".parse().unwrap());
    for (name, value) in pairs {
        headers.insert(*name, value.parse().unwrap());
    }
    headers
}

fn peer(ip: [u8; 4]) -> SocketAddr {
    (ip, 50_000).into()
}

fn access(change: impl FnOnce(&mut BoardSettings)) -> Access {
    let mut settings = settings();
    change(&mut settings);
    Access::new(&settings).unwrap()
}

fn with_token(token: &str) -> Result<Access, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), token).unwrap();
    let mut settings = settings();
    settings.auth = AuthKind::Token;
    file.path().clone_into(&mut settings.token_file);
    Access::new(&settings)
}

fn get(access: &Access, pairs: &[(&'static str, &str)]) -> Result<Account, Refused> {
    access.admit(&Method::GET, &headers(pairs), peer([127, 0, 0, 1]))
}

#[test]
fn a_name_that_is_not_ours_is_refused_even_on_the_loopback() {
    let ours = access(|it| it.hosts = vec!["Board.clinic.example".into()]);
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1:9465",
        "127.9.9.9",
        "[::1]:9465",
        "board.clinic.example",
        "board.clinic.example.:80",
    ] {
        assert!(get(&ours, &[("host", host)]).is_ok(), "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "", "127.0.0.1.evil.example", "[::2]"]
    {
        assert_eq!(get(&ours, &[("host", host)]), Err(Refused::Host), "{host}");
    }
    let mut none = headers(&[]);
    none.remove(HOST);
    assert_eq!(ours.admit(&Method::GET, &none, peer([127, 0, 0, 1])), Err(Refused::Host));
}

#[test]
fn what_changes_something_comes_from_our_own_page() {
    let open = access(|_| {});
    let post = |pairs: &[_]| open.admit(&Method::POST, &headers(pairs), peer([127, 0, 0, 1])).map(drop);
    assert_eq!(post(&[("origin", "http://localhost:9465"), ("sec-fetch-site", "same-origin")]), Ok(()));
    for foreign in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:1"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "none"),
    ] {
        assert_eq!(post(&[foreign]), Err(Refused::Origin), "{foreign:?}");
        assert!(get(&open, &[foreign]).is_ok(), "a page elsewhere may lead to ours");
    }
}

#[test]
fn a_token_is_shown_as_a_bearer_or_as_the_cookie_of_a_sign_in() {
    let access = with_token(&format!("{TOKEN}\n")).unwrap();
    assert_eq!(get(&access, &[]), Err(Refused::Unknown));
    let bearer = format!("Bearer {TOKEN}");
    assert!(get(&access, &[("authorization", &bearer)]).is_ok());
    for wrong in ["Bearer", "Bearer ", &bearer.replace('f', "e"), TOKEN, &format!("{bearer}0")] {
        assert_eq!(get(&access, &[("authorization", wrong)]), Err(Refused::Unknown), "{wrong}");
    }
    assert_eq!(access.sign_in("wrong", &headers(&[])), None);
    let cookie = access.sign_in(TOKEN, &headers(&[])).unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains("Secure"), "{cookie}");
    assert!(!cookie.contains(TOKEN), "the cookie is not the token");
    let pair = cookie.split(';').next().unwrap();
    assert!(get(&access, &[("cookie", &format!("other=1; {pair}"))]).is_ok());
    let other = with_token(&TOKEN.replace('0', "9")).unwrap();
    assert_eq!(get(&other, &[("cookie", pair)]), Err(Refused::Unknown), "another token signs out");
    for wrong in ["memebg-board=", "memebg-board=00", &format!("x{pair}")] {
        assert_eq!(get(&access, &[("cookie", wrong)]), Err(Refused::Unknown), "{wrong}");
    }
    let proxied = access.sign_in(TOKEN, &headers(&[("x-forwarded-proto", "https")])).unwrap();
    assert!(proxied.ends_with("; Secure"), "{proxied}");
    assert!(access.sign_out(&headers(&[])).contains("=; Path=/; Max-Age=0"));
}

#[test]
fn a_token_that_can_be_guessed_or_is_not_there_is_refused() {
    assert!(with_token("short").unwrap_err().contains("24 characters"));
    let mut settings = settings();
    settings.auth = AuthKind::Token;
    settings.token_file = "no/such/file".into();
    assert!(Access::new(&settings).unwrap_err().contains("no/such/file"));
}

#[test]
fn the_header_of_a_proxy_is_believed_from_the_proxy_only() {
    let access = access(|it| {
        it.auth = AuthKind::ProxyHeaders;
        it.proxy_addresses = vec![[10, 0, 0, 1].into()];
        it.proxy_user_header = "X-Forwarded-User".into();
    });
    let named = headers(&[("x-forwarded-user", "u-17")]);
    let from = |ip| access.admit(&Method::GET, &named, peer(ip));
    assert_eq!(from([10, 0, 0, 1]), Ok(Account { name: Some("u-17".into()) }));
    assert_eq!(from([10, 0, 0, 2]), Err(Refused::Unknown));
    assert_eq!(from([127, 0, 0, 1]), Err(Refused::Unknown));
    let mapped: SocketAddr = "[::ffff:10.0.0.1]:1".parse().unwrap();
    assert!(access.admit(&Method::GET, &named, mapped).is_ok());
    for nobody in [headers(&[]), headers(&[("x-forwarded-user", "")])] {
        assert_eq!(access.admit(&Method::GET, &nobody, peer([10, 0, 0, 1])), Err(Refused::Unknown));
    }
    let mut two = named.clone();
    two.append("x-forwarded-user", "u-18".parse().unwrap());
    assert_eq!(access.admit(&Method::GET, &two, peer([10, 0, 0, 1])), Err(Refused::Unknown));
}
