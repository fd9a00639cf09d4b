//! Options of the board, and which of them may stand together.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Options of `memebg board`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardSettings {
    /// `address:port` of the page; port 0 takes a free one.
    pub listen: String,
    /// Who may look.
    pub auth: AuthKind,
    /// The token, for `auth = "token"`.
    pub token_file: PathBuf,
    /// Header in which the proxy names the user, for `auth = "proxy_headers"`.
    pub proxy_user_header: String,
    /// Addresses from which that header is believed.
    pub proxy_addresses: Vec<IpAddr>,
    /// Whether others than this machine may be answered without TLS.
    pub allow_plain_http: bool,
    /// Host names under which the board is reached, beside those of the loopback.
    pub hosts: Vec<String>,
    /// How far back summaries, grades and dead letters are read at the start. 0: all that the topics hold.
    pub history_hours: u32,
    /// How far back photographs are. 0: all that the topic holds.
    pub image_history_hours: u32,
    /// Embryos on the wall.
    pub max_embryos: usize,
    /// Graded frames of each.
    pub max_frames_per_embryo: usize,
    /// Photographs in memory, all together.
    pub max_image_bytes: usize,
    /// Whether the model is loaded, when first asked, to show where it looked.
    pub heat_maps: bool,
}

/// Who may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthKind {
    /// Everybody on this machine.
    None,
    /// Who knows the token.
    Token,
    /// Whom a proxy has let through.
    ProxyHeaders,
}

impl BoardSettings {
    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    /// The option that cannot be used, and what to do.
    pub fn validate(&self) -> Result<(), String> {
        let address: SocketAddr = self.listen.parse().map_err(|_| {
            format!("board.listen {:?} is not an address:port such as 127.0.0.1:9465", self.listen)
        })?;
        match self.auth {
            AuthKind::Token if self.token_file.as_os_str().is_empty() => {
                return Err("board.auth is \"token\" and board.token_file is empty: name the file".into());
            }
            AuthKind::ProxyHeaders
                if self.proxy_addresses.is_empty() || self.proxy_user_header.is_empty() =>
            {
                return Err("board.auth is \"proxy_headers\" and board.proxy_addresses or board.proxy_user_header is \
                            empty: whose headers are to be believed?"
                    .into());
            }
            _ => {}
        }
        for (option, value, most) in [
            ("board.max_embryos", self.max_embryos, 100_000),
            ("board.max_frames_per_embryo", self.max_frames_per_embryo, 10_000),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("{option} {value} is not within 1 and {most}"));
            }
        }
        if address.ip().is_loopback() {
            return Ok(());
        }
        let listen = &self.listen;
        if self.auth == AuthKind::None {
            return Err(format!(
                "board.listen {listen} can be reached from other machines: set board.auth to \"token\" or \
                 \"proxy_headers\", or listen on 127.0.0.1"
            ));
        }
        if !self.allow_plain_http {
            return Err(format!(
                "board.listen {listen} can be reached from other machines without TLS: put a proxy with TLS before it on \
                 this machine and listen on 127.0.0.1, or set board.allow_plain_http = true where the network between \
                 the two is trusted"
            ));
        }
        if self.hosts.is_empty() {
            return Err(format!(
                "board.listen {listen} can be reached from other machines and board.hosts is empty: name the hosts \
                 under which browsers reach it"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "settings/tests.rs"]
pub(super) mod tests;
