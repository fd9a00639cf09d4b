//! What `memebg board` needs beside the cluster. Options that contradict each other are refused with the configuration.

use std::time::Duration;

use super::listener::{self, Listener};
use super::{Check, within};
use crate::board::access::Access;
use crate::board::{AuthKind, BoardSettings};

/// Whether the address of the page is free, and not the one of metrics and probes.
pub(super) async fn listener(settings: &BoardSettings, telemetry: &str) -> Check {
    const NAME: &str = "board.listen";
    let listen = settings.listen.as_str();
    if listen == telemetry && !listen.ends_with(":0") {
        let found = format!("{listen} is telemetry.listen too: the process needs both");
        return Check::fail(NAME, found, "set board.listen or telemetry.listen to another address:port");
    }
    let bound = async { tokio::net::TcpListener::bind(listen).await?.local_addr() };
    let bound = bound.await.map_err(|error| format!("cannot listen on {listen:?}: {error}"));
    let listener = Listener {
        name: NAME,
        listen,
        path: "/",
        // The page, the page to sign in, and what is said to whoever a proxy has not let through.
        marks: &["memebg board", "sign in first"],
        advice: "nothing to do if that is the board; a second one on this machine needs another board.listen",
    };
    listener::check(&listener, bound).await
}

/// Who may look, and whether the token can be used.
pub(super) async fn access(settings: &BoardSettings, timeout: Duration) -> Check {
    const NAME: &str = "board.access";
    let own = settings.clone();
    match within(timeout, move || Access::new(&own).map(drop)).await {
        Ok(Ok(())) => Check::ok(NAME, who(settings)),
        Ok(Err(reason)) => Check::fail(
            NAME,
            reason,
            "let board.token_file name a file that this user may read, with 24 characters or more in it; the board does \
             not start without",
        ),
        Err(reason) => Check::fail(NAME, reason, "look at the disk that board.token_file lies on"),
    }
}

fn who(settings: &BoardSettings) -> String {
    match settings.auth {
        AuthKind::None => "everybody on this machine may look".into(),
        AuthKind::Token => format!("who shows the token of {} may look", settings.token_file.display()),
        AuthKind::ProxyHeaders => {
            let addresses = settings.proxy_addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
            let header = &settings.proxy_user_header;
            format!("whom {header} names may look, as a proxy at {} says", addresses.join(" or "))
        }
    }
}

/// Nothing where none are wanted. `maps` is whether the bundle has any, where that is known.
pub(super) fn heat_maps(settings: &BoardSettings, maps: Option<bool>) -> Option<Check> {
    const NAME: &str = "board.heat_maps";
    settings.heat_maps.then(|| match maps {
        Some(true) => Check::ok(NAME, "the bundle says where it looked"),
        Some(false) => Check::fail(
            NAME,
            "the bundle does not say where it looked: it has no maps",
            "train the bundle anew with `memebg train`, or set board.heat_maps = false",
        ),
        None => Check::skipped(NAME, "needs device"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Layers};
    use crate::doctor::Status;

    fn settings() -> BoardSettings {
        Config::load(&Layers::default(), []).unwrap().board
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_read_or_guessed_is_a_failure_and_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let mut settings = BoardSettings { auth: AuthKind::Token, token_file: file.clone(), ..settings() };
        let look = async |settings: &BoardSettings| access(settings, Duration::from_secs(30)).await;
        let missing = look(&settings).await;
        assert!(missing.status != Status::Ok && missing.found.contains("No such file"), "{missing:?}");
        std::fs::write(&file, "hunter").unwrap();
        let short = look(&settings).await;
        assert!(short.status != Status::Ok && short.found.contains("fewer than 24"), "{short:?}");
        assert!(!short.found.contains("hunter"), "{short:?}");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        let usable = look(&settings).await;
        assert!(usable.status == Status::Ok && !usable.found.contains("0123456789"), "{usable:?}");
        settings.auth = AuthKind::None;
        assert_eq!(look(&settings).await.found, "everybody on this machine may look");
    }

    #[tokio::test]
    async fn the_page_needs_an_address_of_its_own() {
        let at = |listen: &str| BoardSettings { listen: listen.into(), ..settings() };
        assert_eq!(listener(&at("127.0.0.1:0"), "127.0.0.1:0").await.status, Status::Ok);
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = taken.local_addr().unwrap().to_string();
        let check = listener(&at(&listen), "127.0.0.1:0").await;
        assert!(check.found.contains("another program"), "{check:?}");
        drop(taken);
        assert_eq!(listener(&at(&listen), "127.0.0.1:0").await.status, Status::Ok);
        let shared = listener(&at(&listen), &listen).await;
        assert!(shared.status != Status::Ok && shared.found.contains("telemetry.listen"), "{shared:?}");
    }

    #[test]
    fn a_bundle_without_maps_is_a_failure_where_they_are_wanted() {
        let with = |wanted, maps| {
            let settings = BoardSettings { heat_maps: wanted, ..settings() };
            heat_maps(&settings, maps).map(|check| check.status.as_str())
        };
        assert_eq!(with(false, Some(false)), None);
        assert_eq!(with(true, Some(false)), Some("fail"));
        assert_eq!((with(true, Some(true)), with(true, None)), (Some("ok"), Some("skipped")));
    }
}
