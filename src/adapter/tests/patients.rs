//! What names a patient stays in the folder.

use super::*;

/// Name, date of birth, number of a patient in every file and in every path that a layout lets them be.
#[test]
fn nothing_that_names_a_patient_is_in_an_event_a_log_line_or_the_state() {
    let patient = ["Jane", "Doe", "1985", "12345678", "\u{30be}"];
    let person = json!({ "patient_name": "Jane Doe", "birth_date": "1985-03-01", "patient_id": "12345678" });
    let with_person = |json: Value| {
        let mut json = json;
        json.as_object_mut().unwrap().extend(person.as_object().unwrap().clone());
        json.to_string()
    };
    let culture = json!({ "insemination_time": "2026-01-31T10:00:00Z", "insemination_method": "ICSI",
        "time_zero_source": "emr", "captures": { "12": "2026-02-05T06:00:00Z" }, "incubator_utc_offset": "+09:00" });
    let key = tempfile::NamedTempFile::new().unwrap();
    fs::write(key.path(), "0123456789abcdef").unwrap();
    let with_key = || AdapterSettings { pseudonym_key_file: key.path().to_owned(), ..settings() };

    let sidecars = Site::new(with_key());
    let mut named = sidecar(1, 12);
    (named["embryo_id"], named["slide_id"]) = (json!("Jane Doe 1985-03-01"), json!("12345678"));
    sidecars.write("Jane Doe/12345678.png", picture(9));
    sidecars.write("Jane Doe/12345678.json", with_person(named.clone()));
    // Refused for each reason that could repeat what it found.
    for (index, field) in named.as_object().unwrap().keys().enumerate() {
        let mut wrong = named.clone();
        wrong["run"] = json!(100 + index);
        wrong[field] = json!("Jane Doe 12345678");
        sidecars.write(&format!("Doe/1985-03-01 {index}.png"), picture(9));
        sidecars.write(&format!("Doe/1985-03-01 {index}.json"), with_person(wrong));
    }
    sidecars.write("Doe.png", "Jane Doe");
    sidecars.write("Doe.json", with_person(sidecar(9, 9)));
    sidecars.write("12345678.jpg", picture(9));

    let embryoscope = Site::new(AdapterSettings { layout: Layout::Embryoscope, ..settings() });
    for folder in ["Jane Doe/F0", "F0", "Jane Doe"] {
        embryoscope.write(&format!("{folder}/{SLIDE}_P_WELL1_RUN12.png"), picture(9));
    }
    embryoscope.write(&format!("Jane Doe/{SLIDE}.json"), with_person(culture.clone()));
    embryoscope.write(&format!("F0/{SLIDE}_PDoe_WELL1_RUN12.png"), picture(9));
    embryoscope.write(&format!("{SLIDE}.json"), "\"Jane Doe 1985-03-01\"");

    let astec = Site::new(AdapterSettings { layout: Layout::Astec, ..settings() });
    let ini: &[u8] = b"[Timelapse]\r\nStartTime=20260131093000\r\nWellCount=1\r\n[Dish4Info]\r\nAvail=1\r\n\
        PatientName=Jane Doe \x83\x5d\r\nPID1=12345678\r\nPID2=1985-03-01\r\nComment=Jane Doe\r\nWell1Avail=1\r\n\
        Well1ZCount=1\r\nWell1ZSliceUm=10\r\n[Dish5Info]\r\nAvail=Jane Doe\r\n";
    astec.write("20260131093000/DishInfo.ini", ini);
    for dish in [4, 5] {
        astec.write(&format!("20260131093000/DISH{dish}.json"), with_person(culture.clone()));
        astec.write(&format!("20260131093000/DISH{dish}/4221500/00001.png"), picture(9));
    }
    astec.write("Jane Doe/19850301120000/DISH4/4221500/00001.png", picture(9));

    for (mut site, published) in [(sidecars, 3), (embryoscope, 1), (astec, 1)] {
        let log = logged(|| {
            let mut adapter = site.open();
            let tally = site.look(&mut adapter).unwrap();
            assert_eq!(tally.published, published, "{:?} {tally:?}", site.settings.layout);
            assert!(tally.refused > 0);
        });
        assert!(log.contains("not published"), "{log}");
        let state = fs::read_to_string(site.state.path().join("state")).unwrap();
        let mut all = log + &state;
        for Outgoing { id, embryo_id, event } in &site.broker.events {
            all += &format!("{id} {embryo_id} {}\n", String::from_utf8_lossy(event));
        }
        for word in patient {
            assert!(!all.contains(word), "{word} in {all}");
        }
    }
}
