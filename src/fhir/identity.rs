//! Names that follow from what they name, so that the same summary always speaks of the same resources.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::form_urlencoded;

/// Identifier system of embryo ids. An EMR that registers its specimens under it beforehand keeps them.
pub(super) const SPECIMEN_SYSTEM: &str = "https://memebg.org/fhir/sid/embryo";
/// Identifier system of sites.
pub(super) const SITE_SYSTEM: &str = "https://memebg.org/fhir/sid/site";
/// Identifier system of reviewers' pseudonyms.
pub(super) const REVIEWER_SYSTEM: &str = "https://memebg.org/fhir/sid/reviewer";
/// Identifier system of the versions of summaries: `embryo id/version`, the id of the summary's event.
pub(super) const SUMMARY_SYSTEM: &str = "https://memebg.org/fhir/sid/summary";
/// Identifier system of model bundles: SHA-256 of the manifest.
pub(super) const MODEL_SYSTEM: &str = "https://memebg.org/fhir/sid/model-sha256";
/// What FHIR calls the system of an identifier that is a URI.
const URI_SYSTEM: &str = "urn:ietf:rfc:3986";

/// A UUID made from what it names (RFC 9562, version 8): the first half of a SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    /// Each part is preceded by its length, so that no two lists of parts collide.
    pub(super) fn new(kind: &str, parts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for part in std::iter::once(&kind).chain(parts) {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let digest = hasher.finalize();
        let mut bytes = [0; 16];
        for (byte, from) in bytes.iter_mut().zip(digest) {
            *byte = from;
        }
        let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
        *version = (*version & 0x0f) | 0x80;
        *variant = (*variant & 0x3f) | 0x80;
        let number = u128::from_be_bytes(bytes);
        Self(format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            number >> 96,
            (number >> 80) & 0xffff,
            (number >> 64) & 0xffff,
            (number >> 48) & 0xffff,
            number & 0xffff_ffff_ffff
        ))
    }

    /// Without `urn:uuid:`, as an id.
    pub(super) fn uuid(&self) -> &str {
        &self.0
    }

    /// As `fullUrl`, reference within the bundle, and value of an identifier.
    pub(super) fn urn(&self) -> String {
        format!("urn:uuid:{}", self.0)
    }

    pub(super) fn reference(&self) -> Value {
        json!({ "reference": self.urn() })
    }

    pub(super) fn identifier(&self) -> Value {
        json!({ "system": URI_SYSTEM, "value": self.urn() })
    }

    /// The search that finds the resource with this identifier. No character in it has a meaning of its own in a
    /// search, which an embryo id might: a server that took one for a list would overwrite another embryo's grade.
    pub(super) fn conditional(&self) -> String {
        conditional(URI_SYSTEM, &self.urn())
    }
}

/// The search for an identifier, escaped as FHIR says and encoded as a URL wants it.
pub(super) fn conditional(system: &str, value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '\\' | '|' | ',' | '$') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    form_urlencoded::Serializer::new(String::new())
        .append_pair("identifier", &format!("{system}|{escaped}"))
        .finish()
}

/// A reference to something that an EMR knows by this identifier, if at all.
pub(super) fn logical(resource_type: &str, system: &str, value: &str) -> Value {
    json!({ "type": resource_type, "identifier": { "system": system, "value": value } })
}
