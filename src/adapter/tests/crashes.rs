//! Whatever ends the process, and whenever.

use std::path::Path;

use proptest::prelude::*;

use super::*;

/// What may happen to an adapter.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// So many new images.
    Files(u8),
    /// An image vanishes.
    Vanish(u8),
    Look,
    /// It ends between two looks and starts again.
    Restart,
    /// It is killed when the broker has taken so many of a batch, and starts again.
    Kill(u8),
    /// It is killed while it writes the last line of the journal, and starts again.
    Tear(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5_u8).prop_map(Step::Files),
        1 => any::<u8>().prop_map(Step::Vanish),
        4 => Just(Step::Look),
        2 => Just(Step::Restart),
        2 => (0..8_u8).prop_map(Step::Kill),
        1 => (1..60_u8).prop_map(Step::Tear),
    ]
}

/// Cuts the end of a file, within its last line.
fn tear(path: &Path, bytes: u8) -> bool {
    let content = fs::read(path).unwrap();
    let lines = content.iter().filter(|byte| **byte == b'\n').count();
    if lines > 1 {
        fs::write(path, &content[..content.len() - usize::from(bytes)]).unwrap();
    }
    lines > 1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_image_is_published_and_more_than_once_only_for_a_crash(steps in prop::collection::vec(step(), 1..30)) {
        let mut site = Site::new(settings());
        let mut adapter = site.open();
        let (mut files, mut crashes) = (0_u64, 0);
        for step in steps {
            match step {
                Step::Files(count) => for _ in 0..count {
                    site.frame(&format!("{files:04}"), &sidecar(1, files));
                    files += 1;
                },
                // Only one that was published: what vanishes before cannot be.
                Step::Vanish(file) if files > 0 => {
                    let run = u64::from(file) % files;
                    if site.ids().contains(&format!("{SLIDE}_P-1/{run}/0").as_str()) {
                        fs::remove_file(site.folder.path().join(format!("{run:04}.png"))).unwrap_or_default();
                    }
                }
                Step::Vanish(_) => {}
                Step::Look => { site.look(&mut adapter).unwrap(); }
                Step::Restart => {
                    drop(adapter);
                    adapter = site.open();
                }
                Step::Kill(taken) => {
                    site.broker.dies_after = Some(usize::from(taken));
                    crashes += usize::from(site.look(&mut adapter).is_err());
                    site.broker.dies_after = None;
                    drop(adapter);
                    adapter = site.open();
                }
                Step::Tear(bytes) => {
                    drop(adapter);
                    crashes += usize::from(tear(&site.settings.state_file, bytes));
                    adapter = site.open();
                }
            }
        }
        site.look(&mut adapter).unwrap();
        let ids = site.ids();
        for run in 0..files {
            let id = format!("{SLIDE}_P-1/{run}/0");
            let times = ids.iter().filter(|found| **found == id).count();
            prop_assert!((1..=1 + crashes).contains(&times), "run {run} {times} times after {crashes} crashes");
        }
        // And a quiet folder stays quiet, over a restart too.
        let before = site.broker.events.len();
        drop(adapter);
        let mut adapter = site.open();
        site.look(&mut adapter).unwrap();
        prop_assert_eq!(site.broker.events.len(), before);
    }
}
