//! Ids that could carry a name do not leave the site as they are.

use std::fs;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::settings::setting;
use super::{AdapterError, AdapterSettings, Refusal, embryoscope};

/// A shorter secret could be found by trying.
const MIN_KEY_BYTES: usize = 16;
/// 128 bits: no two of a site's ids meet by chance.
const SHOWN_DIGITS: usize = 32;

/// Makes pseudonyms with the site's secret.
pub(super) struct Pseudonyms {
    site_id: String,
    keyed: Option<Hmac<Sha256>>,
}

impl Pseudonyms {
    pub(super) fn open(settings: &AdapterSettings) -> Result<Self, AdapterError> {
        let file = &settings.pseudonym_key_file;
        let site_id = settings.site_id.clone();
        if file.as_os_str().is_empty() {
            return Ok(Self { site_id, keyed: None });
        }
        const OPTION: &str = "pseudonym_key_file";
        let key = fs::read(file)
            .map_err(|error| setting(OPTION, format!("{} cannot be read: {error}", file.display())))?;
        let key = key.trim_ascii_end();
        if key.len() < MIN_KEY_BYTES {
            let short = format!("{} holds {} bytes; want {MIN_KEY_BYTES} or more", file.display(), key.len());
            return Err(setting(OPTION, short));
        }
        let keyed = Hmac::new_from_slice(key).map_err(|error| setting(OPTION, error.to_string()))?;
        Ok(Self { site_id, keyed: Some(keyed) })
    }

    /// The id itself where it can be no name (an EmbryoScope id, a UUID, 16 and more hexadecimal digits), else
    /// HMAC-SHA-256 of it: the same for the same id, and not to be found by hashing names without the secret.
    pub(super) fn of(&self, field: &'static str, id: &str) -> Result<String, Refusal> {
        if is_opaque(id) {
            return Ok(id.to_owned());
        }
        let Some(keyed) = &self.keyed else {
            return Err(Refusal::wrong(format!(
                "{field} is no EmbryoScope id, UUID or hexadecimal number, so it could be a name; set \
                 adapter.pseudonym_key_file to send a pseudonym of it"
            )));
        };
        let mut mac = keyed.clone();
        // Lengths are told apart, so that no two ids of two fields or sites can be one text.
        for part in [field, &self.site_id, id] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let digest = hex::encode(mac.finalize().into_bytes());
        Ok(format!("H-{}", digest.get(..SHOWN_DIGITS).unwrap_or(&digest)))
    }
}

fn is_opaque(id: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let groups: Vec<&str> = id.split('-').collect();
    let uuid =
        groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(|group| hex(group));
    // Digits alone may be a patient's number.
    let number =
        (16..=128).contains(&id.len()) && hex(id) && id.bytes().any(|byte| byte.is_ascii_alphabetic());
    uuid || number || embryoscope::is_slide(id) || embryoscope::is_embryo(id)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::adapter::tests::settings;

    fn pseudonyms(site_id: &str, key: Option<&str>) -> Result<Pseudonyms, AdapterError> {
        let folder = tempfile::tempdir().unwrap();
        let mut pseudonym_key_file = PathBuf::new();
        if let Some(key) = key {
            pseudonym_key_file = folder.path().join("key");
            fs::write(&pseudonym_key_file, key).unwrap();
        }
        Pseudonyms::open(&AdapterSettings { site_id: site_id.into(), pseudonym_key_file, ..settings() })
    }

    #[test]
    fn an_id_that_could_be_a_name_is_refused_without_a_secret_and_not_repeated() {
        let plain = pseudonyms("north", None).unwrap();
        for id in ["D2026.01.31_S00001_I0001_P-2", "6f1c9a52-7f0b-4f2e-9f0e-2f1b6c0d9e11", "9f86d081884c7d65"]
        {
            assert_eq!(plain.of("embryo_id", id).unwrap(), id);
        }
        for id in ["Doe-Jane-2", "D2026.01.31_S00001_I0001_Jane", "1985030112345678", "cafe"] {
            let refusal = plain.of("embryo_id", id).unwrap_err();
            assert!(refusal.message.contains("pseudonym_key_file") && !refusal.message.contains(id));
        }
    }

    #[test]
    fn a_pseudonym_is_the_same_each_time_and_differs_by_id_field_site_and_secret() {
        let key = "0123456789abcdef\n";
        let [ours, again] = [(), ()].map(|()| pseudonyms("north", Some(key)).unwrap());
        let first = ours.of("embryo_id", "Doe-2").unwrap();
        assert_eq!(first, again.of("embryo_id", "Doe-2").unwrap());
        assert!(first.len() == 34 && first.starts_with("H-") && !first.contains("Doe"), "{first}");
        let others = [
            ours.of("embryo_id", "Doe-3"),
            ours.of("slide_id", "Doe-2"),
            pseudonyms("south", Some(key)).unwrap().of("embryo_id", "Doe-2"),
            pseudonyms("north", Some("fedcba9876543210")).unwrap().of("embryo_id", "Doe-2"),
        ];
        assert!(others.into_iter().all(|other| other.unwrap() != first));
    }

    #[test]
    fn a_secret_that_could_be_guessed_is_refused() {
        let Err(error) = pseudonyms("north", Some("secret\n")) else { panic!("a short secret was taken") };
        assert!(error.to_string().contains("6 bytes") && !error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn the_pseudonym_is_the_hmac_of_rfc_2104() {
        // Made with Python's hmac module.
        let ours = pseudonyms("north", Some("0123456789abcdef")).unwrap();
        assert_eq!(ours.of("embryo_id", "Doe-2").unwrap(), "H-b4a83d64a6274feb735a2865dda5f39a");
    }
}
