use super::*;
use crate::random::Random;
use crate::training::distribution::Shares;
use crate::training::evaluation::{
    Abstention, ClassCount, DataSummary, FoldAnswers, HeadAbstention, HeadCounts,
};
use crate::training::{HeadEvaluation, OutOfDistribution, Scored, Threshold, class_labels};

/// A share of 0 to 1.
fn unit(random: &mut Random) -> f32 {
    (random.next_u64() >> 40) as f32 / (1_u32 << 24) as f32
}

/// Answers of ten folds whose logits lean towards the truth by `skill`, and less to its neighbours.
fn answers(head: Head, skill: f32, random: &mut Random) -> Vec<FoldAnswers> {
    let classes = class_labels(head).len();
    let mut scored = || {
        let truth = ((unit(random) * unit(random)) * classes as f32) as usize;
        let logit = |class: usize| {
            let near = match class.abs_diff(truth) {
                0 => skill,
                1 => skill * 0.4,
                _ => 0.0,
            };
            3.0 * (near + 4.0 * (unit(random) - 0.5))
        };
        Scored { truth, logits: (0..classes).map(logit).collect() }
    };
    let fold = |index: usize, scored| FoldAnswers {
        repeat: index / 2,
        fold: index % 2,
        temperature: 1.9 + index as f64 / 20.0,
        scored,
    };
    (0..10).map(|index| fold(index, (0..100).map(|_| scored()).collect())).collect()
}

/// A 5x2 cross-validation with three heads: one clearly better together, one that chance explains, one
/// in between; and a class without a label.
pub(in crate::training) fn example() -> Evaluation {
    let mut random = Random::new(7);
    let mut head = |head: Head, multi: f32, single: f32| {
        let multi = answers(head, multi, &mut random);
        let single = answers(head, single, &mut random);
        HeadEvaluation::of(head, &multi, Some(&single)).unwrap()
    };
    let heads = vec![head(Head::Exp, 2.6, 1.7), head(Head::Icm, 2.2, 2.15), head(Head::Te, 2.3, 2.2)];
    let counts = |head: &Head| HeadCounts {
        head: *head,
        classes: class_labels(*head)
            .into_iter()
            .map(|class| ClassCount { class: class.to_owned(), images: 33 })
            .collect(),
        without_grade: 12,
    };
    let threshold = |abstain_below, coverage, risk| Some(Threshold { abstain_below, coverage, risk });
    Evaluation {
        data: DataSummary {
            name: "labelled-200".to_owned(),
            sha256: "3f".repeat(32),
            images: 200,
            groups: 180,
            grades: Head::ALL.iter().map(counts).collect(),
        },
        model: "example 0.1.0".to_owned(),
        encoders: "frozen".to_owned(),
        protocol: Some(Protocol::FiveByTwo),
        seed: 7,
        seconds: 754.2,
        heads,
        abstention: Some(Abstention {
            risk_target: Some(0.05),
            heads: vec![
                HeadAbstention { head: Head::Exp, threshold: threshold(0.7312, 0.81, 0.048) },
                HeadAbstention { head: Head::Icm, threshold: threshold(0.6625, 0.912, 0.05) },
                HeadAbstention { head: Head::Te, threshold: None },
            ],
        }),
        out_of_distribution: Some(OutOfDistribution {
            abstain_above: 24.5,
            graded: Shares { images: 150, refused: 6 },
            other_stages: Shares { images: 50, refused: 45 },
        }),
        notes: vec!["Drawn embryos: the figures say that the parts fit, nothing about patients.".to_owned()],
    }
}

/// Every attribute value of `name`.
fn values<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    html.split(&format!(" {name}=\"")).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn the_report_needs_nothing_but_itself() {
    let html = html(&example());
    for outside in ["<script", "<link", "<img", "@import", "@font-face", "http://", "https://", "src=\""] {
        assert!(!html.contains(outside), "{outside}");
    }
    for reference in html.split("url(").skip(1) {
        assert!(reference.starts_with('#'), "{reference:.40}");
    }
    assert!(!html.contains("NaN") && !html.contains("inf\""));
}

#[test]
fn names_and_notes_are_text_and_never_markup() {
    let mut evaluation = example();
    let evil = "</title><script>alert('1')</script>\" onload=\"x & y";
    evaluation.model = evil.to_owned();
    evaluation.data.name = evil.to_owned();
    evaluation.data.sha256 = evil.to_owned();
    evaluation.encoders = evil.to_owned();
    evaluation.notes = vec![evil.to_owned()];
    evaluation.data.grades[0].classes[0].class = evil.to_owned();
    evaluation.heads[0].multi.figures.classes[0].class = evil.to_owned();
    let html = html(&evaluation);
    assert!(!html.contains("<script") && !html.contains("\" onload"), "unescaped");
    assert!(html.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot; onload=&quot;x &amp; y"));
}

#[test]
fn every_picture_says_in_words_what_it_shows() {
    let html = html(&example());
    let pictures = html.matches("role=\"img\"").count();
    assert_eq!(pictures, 15);
    let ids = values(&html, "id");
    let unique: std::collections::HashSet<&str> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "an id occurs twice");
    let labelled: Vec<&str> =
        values(&html, "aria-labelledby").into_iter().flat_map(str::split_whitespace).collect();
    assert!(labelled.len() >= 2 * pictures && labelled.iter().all(|id| unique.contains(id)));
    assert_eq!(html.matches("<th").count() - html.matches("<thead").count(), html.matches(" scope=").count());
}

#[test]
fn the_figures_and_the_verdict_are_written_out() {
    let evaluation = example();
    let html = html(&evaluation);
    for head in &evaluation.heads {
        assert!(html.contains(&format!(">{:.3} <small>", head.multi.macro_f1_mean)));
        assert!(html.contains(&escape(&head.paired.unwrap().in_words())));
        for row in &head.multi.figures.confusion {
            assert!(row.iter().all(|count| html.contains(&format!(">{count}</text>"))));
        }
    }
    assert!(html.contains("counts five times") && html.contains("an embryologist decides"));
    assert!(html.contains("12 min 34 s") && html.contains("name 180 embryos"));
}

#[test]
fn a_finished_model_has_no_folds_and_nothing_to_compare() {
    let mut evaluation = example();
    evaluation.protocol = None;
    (evaluation.abstention, evaluation.out_of_distribution) = (None, None);
    for head in &mut evaluation.heads {
        (head.single, head.paired) = (None, None);
    }
    let html = html(&evaluation);
    for absent in ["single-task", "Every fold", "seed", "five times", "chance would give", "of a cut"] {
        let body = html.split("</style>").nth(1).unwrap();
        assert!(!body.contains(absent), "{absent}");
    }
    assert_eq!(html.matches("role=\"img\"").count(), 9);
}

#[test]
fn a_model_that_refuses_most_blastocysts_is_said_to() {
    let mut evaluation = example();
    let row = "<td>150</td><td>6</td><td>4.0 %</td>";
    let fits = html(&evaluation);
    assert!(fits.contains(row) && fits.contains("<td>50</td><td>45</td><td>90.0 %</td>"));
    assert!(!fits.contains("Most blastocysts"));
    let refused = evaluation.out_of_distribution.as_mut().unwrap();
    refused.graded.refused = 76;
    refused.other_stages = Shares::default();
    let does_not = html(&evaluation);
    assert!(
        does_not.contains("Most blastocysts are refused")
            && does_not.contains("<td>0</td><td>0</td><td>–</td>")
    );
}
