//! Cores and memory, as far as this process may use them.

use std::path::{Path, PathBuf};

use super::Check;
use crate::model::cores;

/// What a service with two int8 graders needs with 0.9 MB frames; measured, see "How much it takes" in the README.
const NEEDED_BYTES: u64 = 650 << 20;
/// Graders that are in it.
const NEEDED_FOR_GRADERS: u64 = 2;
/// A limit above this is none: the first version of control groups says "unlimited" in this way.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// `graders` that will be started and the length of the networks that each of them holds, where they are known.
pub(super) fn check(graders: Option<usize>, bundle_bytes: Option<u64>) -> [Check; 2] {
    [of_cores(cores(), graders), of_memory(limit(Path::new("/")), graders, bundle_bytes)]
}

fn of_cores(cores: usize, graders: Option<usize>) -> Check {
    const NAME: &str = "machine.cores";
    let Some(graders) = graders else { return Check::ok(NAME, format!("{cores} cores may be used")) };
    let found = format!("{cores} cores may be used, {graders} graders will start");
    if graders > cores.max(1) * 2 {
        let advice = "leave model.graders at 0: more graders than cores wait for each other";
        return Check::warn(NAME, found, advice);
    }
    Check::ok(NAME, found)
}

fn of_memory(limit: Option<(u64, String)>, graders: Option<usize>, bundle_bytes: Option<u64>) -> Check {
    const NAME: &str = "machine.memory";
    let more = (graders.unwrap_or(0) as u64).saturating_sub(NEEDED_FOR_GRADERS);
    let needed = NEEDED_BYTES.saturating_add(more.saturating_mul(bundle_bytes.unwrap_or(0)));
    let mib = |bytes: u64| bytes >> 20;
    match limit {
        None => Check::skipped(NAME, "neither a limit nor the size of the memory can be seen"),
        Some((limit, whose)) if limit < needed => Check::warn(
            NAME,
            format!("{} MiB ({whose}), about {} MiB may be needed", mib(limit), mib(needed)),
            "raise the limit, or lower model.graders, flow.max_in_flight_bytes and kafka.prefetch_bytes",
        ),
        Some((limit, whose)) => {
            Check::ok(NAME, format!("{} MiB ({whose}), about {} MiB are needed", mib(limit), mib(needed)))
        }
    }
}

/// The least that this process or a group around it may use, and who says so. `root` is `/`, but for tests.
fn limit(root: &Path) -> Option<(u64, String)> {
    let read = |path: PathBuf| std::fs::read_to_string(root.join(path)).ok();
    let groups = read("proc/self/cgroup".into()).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| {
        // "0::/path", or "4:memory:/path" in the first version.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (mount, file) = if controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return Vec::new();
        };
        // In a container the path may be that of the host; the limit is then at the top.
        let around = Path::new(path.trim_start_matches('/')).ancestors();
        around.map(|group| Path::new(mount).join(group).join(file)).collect()
    });
    let limits = limits.filter_map(|file| read(file)?.trim().parse::<u64>().ok());
    let limits =
        limits.filter(|bytes| *bytes < UNLIMITED_BYTES).map(|bytes| (bytes, "limit of its control group"));
    let meminfo = read("proc/meminfo".into()).unwrap_or_default();
    let installed = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let installed = installed.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let installed = installed.map(|kib| (kib.saturating_mul(1_024), "memory of the machine"));
    limits.chain(installed).min_by_key(|(bytes, _)| *bytes).map(|(bytes, whose)| (bytes, whose.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn the_least_limit_of_either_version_counts_and_none_is_none() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(limit(root.path()), None);
        put("proc/meminfo", "MemTotal:        4194304 kB\nMemFree: 1 kB\n");
        put("proc/self/cgroup", "0::/pod/container\n");
        put("sys/fs/cgroup/pod/container/memory.max", "max\n");
        assert_eq!(limit(root.path()), Some((4 << 30, "memory of the machine".to_owned())));
        put("sys/fs/cgroup/pod/memory.max", "1073741824\n");
        assert_eq!(limit(root.path()), Some((1 << 30, "limit of its control group".to_owned())));
        put("proc/self/cgroup", "9:name=systemd:/\n4:memory,hugetlb:/docker/x\n");
        put("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit(root.path()).unwrap().1, "memory of the machine");
        put("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
        assert_eq!(limit(root.path()).unwrap().0, 512 << 20);
    }

    #[test]
    fn memory_below_what_was_measured_is_a_warning_and_more_graders_need_more() {
        let with =
            |mib: u64, graders| of_memory(Some((mib << 20, "limit".into())), Some(graders), Some(50 << 20));
        assert_eq!(with(650, 2).status, Status::Ok);
        assert_eq!(with(649, 2).status, Status::Warn);
        let eight = with(700, 8);
        assert!(eight.status == Status::Warn && eight.found.contains("950 MiB"), "{eight:?}");
        assert_eq!(of_cores(2, Some(8)).status, Status::Warn);
        assert_eq!(of_cores(2, Some(2)).status, Status::Ok);
    }
}
