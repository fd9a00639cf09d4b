//! The adapter as a whole, without a broker.

mod crashes;
mod patients;

use std::fs;
use std::io;
use std::sync::{Arc, Mutex};

use image::GrayImage;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::layout::Candidate;
use super::*;
use crate::domain::{FrameEvent, Text};

const SLIDE: &str = "D2026.01.31_S00001_I0001";

fn clock() -> DateTime<Utc> {
    "2026-02-06T00:00:00Z".parse().unwrap()
}

pub(super) fn settings() -> AdapterSettings {
    AdapterSettings {
        folder: PathBuf::new(),
        layout: Layout::Sidecar,
        site_id: "north".into(),
        state_file: PathBuf::new(),
        pseudonym_key_file: PathBuf::new(),
        poll_seconds: 1,
        settle_seconds: 0,
        report_after_seconds: 0,
        max_depth: 6,
        max_files: 1_000,
        max_image_bytes: 1_000_000,
        inline_up_to_bytes: 1_000_000,
        uri_prefix: String::new(),
        instrument_vendor: "Invented".into(),
        instrument_model: "Lapse 3".into(),
        instrument_serial: "CCM1".into(),
        captured_at: CapturedAt::SlideFile,
        plane_names: PlaneNames::Folder,
        focal_offsets_um: vec![0.0],
    }
}

pub(super) fn candidate(relative: &str) -> Candidate<'_> {
    Candidate { relative, modified: "2026-02-05T07:00:00Z".parse().unwrap() }
}

pub(super) fn sidecar(well: u32, run: u64) -> Value {
    json!({
        "site_id": "north",
        "instrument": { "vendor": "Invented", "model": "Lapse 3", "serial": "L3-0001" },
        "slide_id": SLIDE, "well": well, "embryo_id": format!("{SLIDE}_P-{well}"), "run": run,
        "focal_plane_index": 0, "focal_offset_um": 0.0, "focal_plane_count": 1,
        "captured_at": "2026-02-05T06:00:00Z", "insemination_time": "2026-01-31T10:00:00Z",
        "insemination_method": "ICSI", "time_zero_source": "emr",
    })
}

fn picture(grey: u8) -> Vec<u8> {
    let mut png = io::Cursor::new(Vec::new());
    GrayImage::from_pixel(8, 8, image::Luma([grey])).write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

/// A broker that may stop confirming, and then has some of what was sent, or all.
#[derive(Default)]
struct Broker {
    events: Vec<Outgoing>,
    /// How many of the next batch it takes before the process dies.
    dies_after: Option<usize>,
    refuses_above_bytes: Option<usize>,
}

impl Outlet for Broker {
    fn publish(&mut self, mut frames: Vec<Outgoing>) -> anyhow::Result<Vec<usize>> {
        if let Some(taken) = self.dies_after.take() {
            frames.truncate(taken);
            self.events.append(&mut frames);
            anyhow::bail!("the process was killed");
        }
        let most = self.refuses_above_bytes.unwrap_or(usize::MAX);
        let large = |(index, frame): (usize, &Outgoing)| (frame.event.len() > most).then_some(index);
        let too_large: Vec<usize> = frames.iter().enumerate().filter_map(large).collect();
        self.events
            .extend(frames.into_iter().enumerate().filter(|(at, _)| !too_large.contains(at)).map(|it| it.1));
        Ok(too_large)
    }
}

/// An export folder, the state beside it, and what has been published of it.
struct Site {
    folder: TempDir,
    state: TempDir,
    settings: AdapterSettings,
    broker: Broker,
    now: u64,
}

impl Site {
    fn new(settings: AdapterSettings) -> Self {
        let [folder, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (root, state_file) = (folder.path().to_owned(), state.path().join("state"));
        let settings = AdapterSettings { folder: root, state_file, ..settings };
        Self { folder, state, settings, broker: Broker::default(), now: 0 }
    }

    fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.path().join(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn frame(&self, stem: &str, sidecar: &Value) {
        self.write(&format!("{stem}.png"), picture(9));
        self.write(&format!("{stem}.json"), sidecar.to_string());
    }

    fn open(&self) -> Adapter {
        Adapter::open(self.settings.clone(), 0).unwrap()
    }

    /// A second later.
    fn look(&mut self, adapter: &mut Adapter) -> anyhow::Result<Tally> {
        self.now += 1;
        adapter.look(Duration::from_secs(self.now), clock(), &mut self.broker, &|| false)
    }

    /// `published`, `done`, `waiting`, `refused`.
    fn counts(&mut self, adapter: &mut Adapter) -> [u64; 4] {
        let Tally { published, done, waiting, refused } = self.look(adapter).unwrap();
        [published, done, waiting, refused]
    }

    fn ids(&self) -> Vec<&str> {
        self.broker.events.iter().map(|event| event.id.as_str()).collect()
    }
}

/// Everything that is logged while `run` runs.
fn logged(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn an_image_is_published_once_over_restarts_and_again_when_it_changes() {
    let mut site = Site::new(settings());
    site.frame("a", &sidecar(1, 12));
    let mut adapter = site.open();
    assert_eq!(site.counts(&mut adapter), [1, 1, 0, 0]);
    assert_eq!(site.counts(&mut adapter), [0, 1, 0, 0]);
    drop(adapter);
    let mut adapter = site.open();
    assert_eq!(site.counts(&mut adapter), [0, 1, 0, 0]);
    // The same content with another time, as a copy has it, is nothing new; other content is.
    let later = std::time::SystemTime::now() + Duration::from_secs(60);
    let path = site.folder.path().join("a.png");
    fs::File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
    assert_eq!(site.counts(&mut adapter), [0, 1, 0, 0]);
    site.write("a.png", [picture(9), vec![0]].concat());
    assert_eq!(site.counts(&mut adapter), [1, 1, 0, 0]);
    assert_eq!(site.ids(), [format!("{SLIDE}_P-1/12/0"), format!("{SLIDE}_P-1/12/0")]);
}

#[test]
fn a_file_is_read_when_it_has_stood_still_and_has_what_belongs_to_it() {
    let mut site = Site::new(AdapterSettings { settle_seconds: 2, report_after_seconds: 3, ..settings() });
    let mut adapter = site.open();
    site.write("a.png", &picture(9)[..20]);
    assert_eq!(site.counts(&mut adapter), [0, 0, 1, 0]);
    site.write("a.png", picture(9));
    assert_eq!(site.counts(&mut adapter), [0, 0, 1, 0]);
    assert_eq!(site.counts(&mut adapter), [0, 0, 1, 0]);
    // Settled, but its sidecar lacks: that is an error only three seconds later.
    assert_eq!(site.counts(&mut adapter), [0, 0, 1, 0]);
    let log = logged(|| {
        assert_eq!(site.counts(&mut adapter), [0, 0, 1, 0]);
        assert_eq!(site.counts(&mut adapter), [0, 0, 1, 0]);
    });
    assert!(log.is_empty(), "{log}");
    let log = logged(|| {
        assert_eq!(site.counts(&mut adapter), [0, 0, 0, 1]);
        assert_eq!(site.counts(&mut adapter), [0, 0, 0, 1]);
    });
    assert_eq!(log.matches("not published").count(), 1, "{log}");
    site.write("a.json", sidecar(1, 12).to_string());
    assert_eq!(site.counts(&mut adapter), [1, 1, 0, 0]);
}

#[test]
fn two_images_that_claim_one_frame_are_never_chosen_between() {
    let mut site = Site::new(settings());
    site.frame("a", &sidecar(1, 12));
    site.frame("b", &sidecar(1, 12));
    let mut adapter = site.open();
    assert_eq!(site.counts(&mut adapter), [0, 0, 0, 2]);
    fs::remove_file(site.folder.path().join("a.png")).unwrap();
    assert_eq!(site.counts(&mut adapter), [1, 1, 0, 0]);
    // The published one stays, also after a restart, and whatever its place among the names.
    site.write("a.png", picture(30));
    assert_eq!(site.counts(&mut adapter), [0, 1, 0, 1]);
    drop(adapter);
    let mut adapter = site.open();
    assert_eq!(site.counts(&mut adapter), [0, 1, 0, 1]);
}

#[test]
fn what_no_service_would_accept_is_refused_and_the_others_go_on() {
    let mut site =
        Site::new(AdapterSettings { max_image_bytes: 2_000, inline_up_to_bytes: 2_000, ..settings() });
    site.frame("good", &sidecar(1, 12));
    for (index, (field, value)) in [
        ("captured_at", json!("2026-02-07T06:00:00Z")),
        ("captured_at", json!("2026-01-30T06:00:00Z")),
        ("focal_plane_index", json!(1)),
        ("well", json!(0)),
        ("site_id", json!("south")),
        ("embryo_id", json!("Doe")),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wrong = sidecar(2, index as u64);
        wrong[field] = value;
        site.frame(&format!("wrong{index}"), &wrong);
    }
    site.frame("text", &sidecar(3, 1));
    site.write("text.png", "no picture");
    site.frame("large", &sidecar(3, 2));
    site.write("large.png", [picture(9), vec![0; 2_000]].concat());
    let mut adapter = site.open();
    assert_eq!(site.counts(&mut adapter), [1, 1, 0, 8]);
}

#[test]
fn a_large_image_goes_by_reference_unless_its_path_could_be_a_name() {
    let uri_prefix = "file:///mnt/frames/".to_owned();
    let limits = AdapterSettings { inline_up_to_bytes: 0, uri_prefix, ..settings() };
    let mut site = Site::new(limits);
    site.frame(&format!("F0/{SLIDE}_P-1_WELL1_RUN12"), &sidecar(1, 12));
    site.frame("Jane Doe", &sidecar(2, 12));
    let mut adapter = site.open();
    assert_eq!(site.counts(&mut adapter), [1, 1, 0, 1]);
    let event = FrameEvent::from_json(&site.broker.events[0].event).unwrap();
    assert!(event.image.data.is_none());
    let uri = event.image.uri.map(|Text(uri)| uri.into_owned()).unwrap();
    assert_eq!(uri, format!("file:///mnt/frames/F0/{SLIDE}_P-1_WELL1_RUN12.png"));
}

#[test]
fn an_event_that_the_topic_does_not_take_stops_no_other() {
    let mut site = Site::new(settings());
    site.broker.refuses_above_bytes = Some(2_000);
    site.frame("a", &sidecar(1, 12));
    site.write("a.png", [picture(9), vec![0; 2_000]].concat());
    site.frame("b", &sidecar(2, 12));
    let mut adapter = site.open();
    assert_eq!(site.counts(&mut adapter), [1, 1, 0, 1]);
    site.broker.refuses_above_bytes = None;
    assert_eq!(site.counts(&mut adapter), [1, 2, 0, 0]);
}

#[test]
fn the_journal_forgets_what_is_gone_from_the_folder() {
    let mut site = Site::new(AdapterSettings { max_files: 10, ..settings() });
    let mut adapter = site.open();
    for run in 0..30 {
        site.frame("a", &sidecar(1, run));
        site.write("a.png", [picture(9), vec![0; run as usize]].concat());
        site.look(&mut adapter).unwrap();
        assert_eq!(adapter.journal.len(), 1);
    }
    // What is not described may be one of the frames that seem to be gone.
    site.write("unknown.png", picture(9));
    fs::remove_file(site.folder.path().join("a.png")).unwrap();
    site.look(&mut adapter).unwrap();
    assert_eq!(adapter.journal.len(), 1);
}

#[test]
fn a_share_that_is_away_for_a_while_brings_nothing_again() {
    let mut site = Site::new(settings());
    site.frame("a", &sidecar(1, 12));
    let mut adapter = site.open();
    assert_eq!(site.counts(&mut adapter), [1, 1, 0, 0]);
    let (root, away) = (site.folder.path().to_owned(), site.state.path().join("away"));
    // Not there at all, then a place without a mount.
    fs::rename(&root, &away).unwrap();
    assert_eq!(site.counts(&mut adapter), [0, 0, 0, 1]);
    fs::create_dir(&root).unwrap();
    assert_eq!(site.counts(&mut adapter), [0, 0, 0, 0]);
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    assert_eq!(site.counts(&mut adapter), [0, 1, 0, 0]);
}

#[test]
fn an_option_that_is_missing_is_named() {
    type Spoil = Box<dyn Fn(&mut AdapterSettings)>;
    let cases: [(&str, Spoil); 8] = [
        ("adapter.folder", Box::new(|it: &mut AdapterSettings| it.folder = PathBuf::new())),
        ("adapter.folder", Box::new(|it| it.folder = "no/such/folder".into())),
        ("adapter.state_file", Box::new(|it| it.state_file = PathBuf::new())),
        ("adapter.site_id", Box::new(|it| it.site_id = "the north".into())),
        ("adapter.uri_prefix", Box::new(|it| it.uri_prefix = "s3://frames".into())),
        ("adapter.pseudonym_key_file", Box::new(|it| it.pseudonym_key_file = "no/such/key".into())),
        (
            "adapter.instrument_serial",
            Box::new(|it| {
                (it.layout, it.instrument_serial) = (Layout::Astec, "Jane Doe".into());
            }),
        ),
        (
            "adapter.instrument_model",
            Box::new(|it| {
                (it.layout, it.instrument_model) = (Layout::Embryoscope, String::new());
            }),
        ),
    ];
    for (name, spoil) in cases {
        let mut site = Site::new(settings());
        spoil(&mut site.settings);
        let Err(error) = Adapter::open(site.settings.clone(), 0) else { panic!("{name} was taken") };
        assert!(error.to_string().starts_with(name), "{error}");
    }
}
