use serde_json::Value;

use super::*;
use crate::domain::{
    AbstainReason, Embryo, EmbryoSummary, Expansion, FrameEvent, GradeEvent, GraderIdentity, HeadGrade,
    Heads, ModelIdentity, Review, ReviewReason, ReviewedSummary, Timings, Window,
};

/// Nine captures at three planes from 110 hpi to 118 hpi; two of them were not graded.
pub(super) fn events() -> Vec<GradeEvent> {
    let json = include_str!("../../schemas/examples/frame/by_uri.json");
    let event = FrameEvent::from_json(json.as_bytes()).unwrap();
    let first = event.to_frame(event.validate("2026-02-01T00:00:00Z".parse().unwrap(), 0).unwrap());
    let model = ModelIdentity {
        name: "invented".into(),
        version: "1.2.0".into(),
        digest: "ab".repeat(32),
        untrained: false,
    };
    let grader = GraderIdentity { model, device: "cpu".into(), precision: "int8+fp32".into() };
    let shots = (0..9_u8).flat_map(|capture| (0..3_u8).map(move |plane| (capture, plane)));
    let graded = shots.map(|(capture, plane)| {
        let mut frame = first.clone();
        frame.id.run = 400 + u64::from(capture);
        frame.id.focal_plane_index = plane.into();
        frame.plane.index = plane.into();
        frame.plane.offset_um = 15.0 * (f64::from(plane) - 1.0);
        frame.plane.count = 3;
        frame.clocks.hpi = 110.0 + f64::from(capture);
        frame.image.sha256 = format!("{capture:02x}{plane:02x}").repeat(16);
        let mut logits = [0.0; 6];
        logits[usize::from(capture / 3) + 1] = 3.0;
        let letter = |logits: &[f32; 3]| HeadGrade::from_logits(logits, 1.0).unwrap();
        let exp = HeadGrade::from_logits(&logits, 1.0).unwrap();
        let heads = Heads::new(exp, letter(&[2.0, 1.0, 0.0]), letter(&[0.0, 1.0, 0.5]));
        let (reasons, heads) = match capture {
            2 => (vec![AbstainReason::Blurred], None),
            4 => (vec![AbstainReason::LowConfidence], Some(heads)),
            _ => (vec![], Some(heads)),
        };
        GradeEvent::new(&frame, reasons, heads, &grader, "0.1.0", Timings::default())
    });
    graded.collect()
}

fn embryo() -> Embryo {
    let window = Window::new(110.0, 120.0);
    let mut embryo: Option<Embryo> = None;
    for event in events() {
        match &mut embryo {
            Some(embryo) => drop(embryo.add(&event).unwrap()),
            None => embryo = Embryo::first(window, &event).unwrap(),
        }
    }
    embryo.unwrap()
}

pub(super) fn case() -> Case {
    Case::new(embryo().summary(), events()).unwrap()
}

fn reviewed(exp: Expansion) -> Case {
    let mut embryo = embryo();
    let letters = exp.has_letters().then(|| embryo.summary().heads.unwrap());
    let review = Review {
        embryo_id: embryo.id().to_owned(),
        site_id: "north".into(),
        reviewer: "rev-7".into(),
        reviewed_at: "2026-02-01T09:30:00Z".parse().unwrap(),
        blinded: true,
        exp,
        icm: letters.as_ref().and_then(|it| it.icm.as_ref()).map(|it| it.grade),
        te: letters.as_ref().and_then(|it| it.te.as_ref()).map(|it| it.grade),
        reason: ReviewReason::WrongExpansion,
        summary: ReviewedSummary { version: 1, gardner: None, model_digest: "ab".repeat(32) },
    };
    embryo.review(&review);
    Case::new(embryo.summary(), events()).unwrap()
}

fn data(case: Case) -> ReportData {
    let photographs =
        case.wanted_images().into_iter().map(|sha256| (sha256.to_owned(), Ok(vec![0xff, 0xd8]))).collect();
    let looked = Looked::Unknown("No bundle is configured.".into());
    ReportData {
        case,
        photographs,
        looked,
        made_at: "2026-02-02T08:00:00Z".parse().unwrap(),
        made_by: "0.1.0".into(),
    }
}

/// The text between the tags.
fn words(html: &str) -> String {
    let body = html.split("<body>").nth(1).unwrap();
    let text: String =
        body.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_report_says_what_the_summary_and_the_events_say() {
    let html = html(&data(case()));
    let said = words(&html);
    for fact in [
        "4AB",
        "preliminary",
        "no embryologist has confirmed it",
        "Decision support only",
        "int8+fp32",
        "cpu",
        "invented",
        "1.2.0",
        "out of focus (3)",
        "model unsure (3)",
        "21 of 27 graded",
        "9 of 27 photographs shown",
        "No bundle is configured.",
        "memebg verify",
        "Made on 2026-02-02 08:00:00 UTC by memebg 0.1.0",
    ] {
        assert!(said.contains(fact), "{fact:?} is not in {said}");
    }
    let case = case();
    for event in case.pictured() {
        assert!(said.contains(event.id.as_str()) && said.contains(&event.image_sha256), "{}", event.hpi);
    }
    assert_eq!(html.matches("data:image/jpeg;base64,/9g=").count(), 9);
    assert!(said.contains("No embryologist has reviewed this embryo yet."));
}

#[test]
fn a_review_stands_beside_the_machines_grade_and_decides_what_is_said_first() {
    let amended = words(&html(&data(reviewed(Expansion::E2))));
    assert!(
        amended
            .contains("Grade 2 amended Reviewed: embryologist rev-7 gave this grade; the machine gave 4AB."),
        "{amended}"
    );
    for fact in [
        "yes: given before the machine’s grade was seen",
        "the machine’s expansion was wrong",
        "rev-7 (pseudonym)",
    ] {
        assert!(amended.contains(fact), "{fact:?} is not in {amended}");
    }
    let agreed = words(&html(&data(reviewed(Expansion::E4))));
    assert!(agreed.contains("Grade 4AB final Reviewed: embryologist rev-7 gave the same grade"), "{agreed}");
    assert!(agreed.contains("machine, reviewer"));
}

#[test]
fn without_grades_nothing_is_invented() {
    let json = include_str!("../../schemas/examples/summary/all_abstained.json");
    let case = Case::new(serde_json::from_str(json).unwrap(), []).unwrap();
    let said = words(&html(&data(case)));
    for fact in [
        "no grade",
        "There are none: no photograph was graded.",
        "0 of 3 photographs shown",
        "Of 3 photographs the grade event is not to be had any more.",
        "There is no graded photograph",
    ] {
        assert!(said.contains(fact), "{fact:?} is not in {said}");
    }
}

#[test]
fn a_photograph_that_is_not_to_be_had_is_a_sentence_and_maps_are_shown_where_there_are_some() {
    let mut data = data(case());
    let first = data.photographs.keys().next().unwrap().clone();
    data.photographs.insert(first, Err("not on the topic <any more>".into()));
    data.looked = Looked::Maps { photograph: vec![1], maps: vec![(Head::Exp, vec![2]), (Head::Te, vec![3])] };
    let html = html(&data);
    assert!(html.contains("<p class=\"missing\">not on the topic &lt;any more&gt;</p>"));
    assert_eq!(html.matches("<img ").count(), 8 + 3);
    assert!(html.matches("<img ").count() == html.matches(" alt=\"").count() && !html.contains("alt=\"\""));
    assert!(words(&html).contains("Trophectoderm (TE)"));
}

/// Every text that a summary or an event may carry, made hostile.
fn hostile(value: &mut Value, text: &str) {
    const FREE: &[&str] = &[
        "embryo_id",
        "site_id",
        "slide_id",
        "dish_id",
        "name",
        "digest",
        "pipeline_version",
        "grade_id",
        "reviewer",
        "gardner",
        "id",
        "device",
        "precision",
        "vendor",
        "model",
        "serial",
        "image_sha256",
    ];
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match value {
            Value::String(known) if FREE.contains(&name.as_str()) => *known = text.to_owned(),
            // That of a model; that of a summary is a number.
            Value::String(known) if name == "version" => *known = text.to_owned(),
            value => hostile(value, text),
        }),
        Value::Array(values) => values.iter_mut().for_each(|value| hostile(value, text)),
        _ => {}
    }
}

#[test]
fn no_text_of_an_event_becomes_markup() {
    for text in [
        "<script>alert(1)</script>",
        "\"'><img src=x onerror=alert(1)>",
        "</style><script>",
        "</title>&lt;!--",
        "P-\u{202e}1\u{2066}",
        "\\\"}@import'//x';",
    ] {
        let case = reviewed(Expansion::E2);
        let mut summary = serde_json::to_value(case.summary()).unwrap();
        hostile(&mut summary, text);
        let summary: EmbryoSummary = serde_json::from_value(summary).unwrap();
        // The id of an event is a digest of what it says, so that the check of it lets the rest through.
        let mut frames: Vec<CaseFrame> = case.frames().to_vec();
        for frame in &mut frames {
            let mut event = serde_json::to_value(frame.event.take()).unwrap();
            hostile(&mut event, text);
            frame.event = Some(serde_json::from_value(event).unwrap());
        }
        let mut data = data(Case::for_test(summary, frames));
        data.photographs =
            data.case.wanted_images().into_iter().map(|it| (it.to_owned(), Err(text.to_owned()))).collect();
        data.looked = Looked::Unknown(text.to_owned());
        data.made_by = text.to_owned();
        let html = html(&data);
        let lower = html.to_lowercase();
        for forbidden in [
            "<script",
            "<img",
            "</style><",
            "onerror=alert(1)>",
            "</title>&lt;!--",
            "@import'",
            "\u{202e}",
            "\u{2066}",
        ] {
            assert!(!lower.contains(forbidden), "{forbidden:?} of {text:?}");
        }
        let plain = self::html(&self::data(reviewed(Expansion::E2)));
        let tags = |html: &str| {
            html.matches('<').count()
                - html.matches("<img ").count()
                - html.matches("<p class=\"missing\">").count() * 2
        };
        assert_eq!(tags(&html), tags(&plain), "{text:?} changes the markup");
    }
}

#[test]
fn a_report_needs_nothing_else_and_is_of_bounded_size() {
    let mut data = data(case());
    // As large as a small JPEG of nothing but noise.
    data.photographs.values_mut().for_each(|jpeg| *jpeg = Ok(vec![7; 60_000]));
    let html = html(&data);
    for forbidden in
        ["<script", "<link", "@import", "url(", "http:", "https:", "src=\"/", "<iframe", "onload"]
    {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(html.len() < MAX_PHOTOGRAPHS * 80_000 + 200_000, "{}", html.len());
    assert!(html.contains("default-src 'none'") && html.contains("<html lang=\"en-GB\">"));
}

#[test]
fn headings_are_in_order_and_every_section_has_its_own() {
    for case in [case(), reviewed(Expansion::E2)] {
        let html = html(&data(case));
        let levels: Vec<u32> =
            html.split("<h").skip(1).filter_map(|rest| rest.chars().next()?.to_digit(10)).collect();
        assert_eq!((levels[0], levels.iter().filter(|level| **level == 1).count()), (1, 1));
        assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
        for label in html.split("aria-labelledby=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            for id in label.split(' ') {
                assert_eq!(html.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
            }
        }
    }
}
