//! Who may look, from which page, under which name of the host.
//!
//! Every request passes here before any route is looked at.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, Method};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use super::settings::{AuthKind, BoardSettings};

/// Name of the cookie of whoever has signed in.
const COOKIE_NAME: &str = "memebg-board";
/// Shorter tokens can be guessed.
const MIN_TOKEN_CHARS: usize = 24;

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Under a host name that is not ours: a page elsewhere may have had its name resolved to us.
    Host,
    /// From a page elsewhere.
    Origin,
    /// Nobody we know.
    Unknown,
}

/// Whoever is let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// As the proxy names it; none where there is no proxy.
    pub name: Option<String>,
}

/// The rules.
#[derive(Debug)]
pub struct Access {
    hosts: Vec<String>,
    by: By,
}

#[derive(Debug)]
enum By {
    Everybody,
    Token(Token),
    Proxy { header: String, addresses: Vec<IpAddr> },
}

#[derive(Debug)]
struct Token {
    token: [u8; 32],
    /// What a signed-in browser shows. It follows from the token: another token signs everybody out.
    session: [u8; 32],
}

impl Access {
    /// Reads the token, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read or its token can be guessed.
    pub fn new(settings: &BoardSettings) -> Result<Self, String> {
        let by = match settings.auth {
            AuthKind::None => By::Everybody,
            AuthKind::ProxyHeaders => By::Proxy {
                header: settings.proxy_user_header.to_lowercase(),
                addresses: settings.proxy_addresses.clone(),
            },
            AuthKind::Token => {
                let file = settings.token_file.display();
                let text = std::fs::read_to_string(&settings.token_file)
                    .map_err(|error| format!("cannot read board.token_file {file}: {error}"))?;
                let token = text.trim();
                if token.len() < MIN_TOKEN_CHARS {
                    return Err(format!(
                        "board.token_file {file} holds fewer than {MIN_TOKEN_CHARS} characters: make one with \
                         `openssl rand -hex 32`"
                    ));
                }
                By::Token(Token { token: digest("token", token), session: digest("session", token) })
            }
        };
        let hosts = settings.hosts.iter().map(|host| host.to_lowercase()).collect();
        Ok(Self { hosts, by })
    }

    /// Whether a request may go on, and whose it is.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, method: &Method, headers: &HeaderMap, peer: SocketAddr) -> Result<Account, Refused> {
        self.is_ours(method, headers)?;
        match &self.by {
            By::Everybody => Ok(Account::default()),
            By::Token(token) => {
                let bearer = text(headers, AUTHORIZATION.as_str()).and_then(|it| it.strip_prefix("Bearer "));
                let known = bearer.is_some_and(|shown| self.is_token(shown))
                    || cookie(headers).is_some_and(|shown| {
                        hex::decode(shown).is_ok_and(|shown| token.session.ct_eq(shown.as_slice()).into())
                    });
                known.then(Account::default).ok_or(Refused::Unknown)
            }
            By::Proxy { header, addresses } => {
                let believed = addresses.contains(&peer.ip().to_canonical());
                let name = text(headers, header).filter(|name| believed && !name.is_empty());
                name.map(|name| Account { name: Some(name.to_owned()) }).ok_or(Refused::Unknown)
            }
        }
    }

    /// Whether a request comes to one of our names and, where it changes something, from one of our own pages.
    ///
    /// # Errors
    /// Which of the two it does not.
    pub fn is_ours(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
        let host = text(headers, HOST.as_str()).filter(|host| self.is_our_host(host)).ok_or(Refused::Host)?;
        if method == Method::GET || method == Method::HEAD {
            return Ok(());
        }
        // Browsers send the first with every POST and, since 2023, all of them send the second; a page cannot forge
        // either. What sends none of them is no browser, and has no cookie of ours to abuse.
        let from = text(headers, ORIGIN.as_str());
        let origin_fits =
            from.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, it)| it == host));
        let site = text(headers, "sec-fetch-site");
        let site_fits = site.is_none_or(|site| site == "same-origin");
        (origin_fits && site_fits).then_some(()).ok_or(Refused::Origin)
    }

    /// Whether somebody who is not known yet can sign in with a token.
    #[must_use]
    pub fn has_sign_in(&self) -> bool {
        matches!(self.by, By::Token(_))
    }

    /// The cookie for whoever shows the right token.
    #[must_use]
    pub fn sign_in(&self, shown: &str, headers: &HeaderMap) -> Option<String> {
        let By::Token(token) = &self.by else { return None };
        self.is_token(shown).then(|| set_cookie(&hex::encode(token.session), 60 * 60 * 12, headers))
    }

    /// Takes the cookie away.
    #[must_use]
    pub fn sign_out(&self, headers: &HeaderMap) -> String {
        set_cookie("", 0, headers)
    }

    /// Digests of equal length are compared, in a time that does not depend on where they differ.
    fn is_token(&self, shown: &str) -> bool {
        let By::Token(token) = &self.by else { return false };
        token.token.ct_eq(&digest("token", shown.trim())).into()
    }

    fn is_our_host(&self, host: &str) -> bool {
        let name = if host.starts_with('[') {
            host.split_once(']').map_or(host, |(name, _)| name.trim_start_matches('['))
        } else {
            host.split_once(':').map_or(host, |(name, _)| name)
        };
        let name = name.trim_end_matches('.').to_lowercase();
        let loopback = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
        loopback || self.hosts.contains(&name)
    }
}

/// `Secure` where a proxy says that it speaks TLS: without TLS browsers would not keep such a cookie.
fn set_cookie(value: &str, max_age_seconds: u64, headers: &HeaderMap) -> String {
    let secure = if text(headers, "x-forwarded-proto") == Some("https") { "; Secure" } else { "" };
    format!("{COOKIE_NAME}={value}; Path=/; Max-Age={max_age_seconds}; HttpOnly; SameSite=Strict{secure}")
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut pairs = all.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    // Of two, a proxy and we might believe different ones.
    values.next().is_none().then_some(value)
}

fn digest(purpose: &str, token: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(purpose);
    hasher.update([0]);
    hasher.update(token);
    hasher.finalize().into()
}

#[cfg(test)]
#[path = "access/tests.rs"]
mod tests;
