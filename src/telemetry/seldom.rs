//! What would be logged again and again is logged seldom, with how often it was not.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the same thing is not said again.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Says for each key whether it may be logged: at once, and then not more often than every half minute. The keys are
/// those of an enum or of error codes, of which there are few.
#[derive(Debug)]
pub struct Seldom<K>(Mutex<HashMap<K, Said>>);

#[derive(Debug)]
struct Said {
    at: Instant,
    suppressed: u64,
}

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash> Seldom<K> {
    /// How many lines about `key` were left out since the last one, when it is time for another.
    pub fn due(&self, key: K) -> Option<u64> {
        self.due_at(key, Instant::now())
    }

    fn due_at(&self, key: K, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match said.get_mut(&key) {
            Some(last) if now.saturating_duration_since(last.at) < AGAIN_AFTER => {
                last.suppressed += 1;
                None
            }
            Some(last) => Some(std::mem::replace(last, Said { at: now, suppressed: 0 }).suppressed),
            None => {
                said.insert(key, Said { at: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_is_said_at_once_and_then_every_half_minute_with_what_was_left_out() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let at = |key, seconds| seldom.due_at(key, start + Duration::from_secs(seconds));
        assert_eq!((at("a", 0), at("a", 1), at("a", 29)), (Some(0), None, None));
        assert_eq!(at("b", 2), Some(0), "another thing");
        assert_eq!((at("a", 30), at("a", 31), at("a", 60)), (Some(2), None, Some(1)));
    }
}
