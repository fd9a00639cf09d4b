//! What concerns all heads: the headline, thresholds, folds, data and limits.

use std::collections::BTreeSet;

use super::{escape, figure, macro_f1, name, percent};
use crate::training::distribution::Shares;
use crate::training::evaluation::{Arm, Evaluation, HeadAbstention, HeadEvaluation};
use crate::training::{HeadFigures, Protocol};

pub(super) fn headline(evaluation: &Evaluation) -> String {
    let cards: String = evaluation.heads.iter().map(card).collect();
    let rows: String = evaluation
        .heads
        .iter()
        .flat_map(|head| {
            let arm = |trained, arm: &Arm| row(head, trained, arm);
            let single = head.single.as_ref().map(|single| arm("single-task", single));
            std::iter::once(arm("multi-task", &head.multi)).chain(single)
        })
        .collect();
    format!(
        "<section aria-labelledby=\"headline\">\n<h2 id=\"headline\">At a glance</h2>\n\
         <div class=\"cards\">\n{cards}</div>\n<div class=\"wide\"><table>\n\
         <caption>Macro F1: mean of the folds ± standard deviation. The rest: all test answers \
         together.</caption>\n<thead><tr><th scope=\"col\">Head</th><th scope=\"col\" class=\"text\">Training</th>\
         <th scope=\"col\">Answers</th><th scope=\"col\">Macro F1</th><th scope=\"col\">Accuracy</th>\
         <th scope=\"col\">Quadratic kappa</th><th scope=\"col\">ECE before</th>\
         <th scope=\"col\">ECE after</th><th scope=\"col\">NLL</th></tr></thead>\n<tbody>\n{rows}</tbody>\
         </table></div>\n</section>\n"
    )
}

fn card(head: &HeadEvaluation) -> String {
    let single = head.single.as_ref().map_or_else(String::new, |single| {
        format!("<p class=\"versus\"><span class=\"key single\"></span> single-task {}</p>", macro_f1(single))
    });
    let verdict = head.paired.map_or_else(String::new, |test| {
        let class = if test.is_more_than_chance() { "verdict found" } else { "verdict" };
        format!("<p class=\"{class}\">{}</p>", escape(&test.in_words()))
    });
    let HeadFigures { accuracy, ece, .. } = head.multi.figures;
    let deviation = head.multi.macro_f1_std.map(|std| format!(" <small>± {std:.3}</small>"));
    format!(
        "<div class=\"card\"><h3>{}</h3><p class=\"big\">{:.3}{}</p>\
         <p class=\"what\"><span class=\"key multi\"></span> macro F1, multi-task</p>{single}\
         <p class=\"versus\">accuracy {} · kappa {} · ECE {ece:.3}</p>{verdict}</div>\n",
        name(head.head),
        head.multi.macro_f1_mean,
        deviation.unwrap_or_default(),
        percent(accuracy),
        figure(head.multi.figures.quadratic_kappa)
    )
}

fn row(head: &HeadEvaluation, trained: &str, arm: &Arm) -> String {
    let figures = &arm.figures;
    format!(
        "<tr><th scope=\"row\">{}</th><td class=\"text\">{trained}</td><td>{}</td><td>{}</td><td>{}</td>\
         <td>{}</td><td>{:.3}</td><td>{:.3}</td><td>{:.3}</td></tr>\n",
        head.head.as_str().to_uppercase(),
        figures.images,
        macro_f1(arm),
        percent(figures.accuracy),
        figure(figures.quadratic_kappa),
        arm.ece_before,
        figures.ece,
        figures.nll
    )
}

pub(super) fn abstention(evaluation: &Evaluation) -> String {
    let Some(abstention) = &evaluation.abstention else { return String::new() };
    let caption = abstention.risk_target.map_or_else(
        || "Thresholds of the model, measured on these answers".to_owned(),
        |target| format!("Thresholds for at most {} of wrong grades", percent(target)),
    );
    let row = |head: &HeadAbstention| {
        let cells = head.threshold.map_or_else(
            || "<td colspan=\"3\" class=\"text\">none: see below</td>".to_owned(),
            |threshold| {
                format!(
                    "<td>{:.4}</td><td>{}</td><td>{}</td>",
                    threshold.abstain_below,
                    percent(threshold.coverage),
                    percent(threshold.risk)
                )
            },
        );
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", name(head.head))
    };
    let rows: String = abstention.heads.iter().map(row).collect();
    let none = if abstention.risk_target.is_some() {
        "A head has no threshold when no confidence that 20 answers reach meets the target: it then always \
         answers."
    } else {
        "A head without a threshold always answers."
    };
    format!(
        "<section aria-labelledby=\"abstention\">\n<h2 id=\"abstention\">Saying nothing when unsure</h2>\n\
         <div class=\"wide\"><table>\n<caption>{caption}</caption>\n<thead><tr><th scope=\"col\">Head</th>\
         <th scope=\"col\">No grade below confidence</th><th scope=\"col\">Graded</th>\
         <th scope=\"col\">Wrong among these</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n\
         <p class=\"aside\">{none} The service gives no grade at all when one head is unsure.</p>\n</section>\n"
    )
}

pub(super) fn out_of_distribution(evaluation: &Evaluation) -> String {
    let Some(refused) = &evaluation.out_of_distribution else { return String::new() };
    let row = |pictures: &str, shares: &Shares| {
        format!(
            "<tr><th scope=\"row\">{pictures}</th><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            shares.images,
            shares.refused,
            shares.share().map_or_else(|| "–".to_owned(), percent)
        )
    };
    let verdict =
        if refused.is_for_other_pictures() { "<strong>Most blastocysts are refused.</strong> " } else { "" };
    format!(
        "<section aria-labelledby=\"distribution\">\n<h2 id=\"distribution\">Saying nothing of unknown pictures</h2>\n\
         <div class=\"wide\"><table>\n<caption>{}</caption>\n<thead><tr><th scope=\"col\">Labelled as</th>\
         <th scope=\"col\">Images</th><th scope=\"col\">Refused</th><th scope=\"col\">Share</th></tr></thead>\n\
         <tbody>\n{}{}</tbody></table></div>\n<p class=\"aside\">{verdict}The distance is that of the DINOv2 \
         embedding (Mahalanobis). A blastocyst that is refused goes without a grade; other stages have none to \
         lose. Refused images count in all other figures here.</p>\n</section>\n",
        escape(&refused.in_words()),
        row("Blastocyst", &refused.graded),
        row("Zygote, cleavage, morula", &refused.other_stages)
    )
}

pub(super) fn folds(evaluation: &Evaluation) -> String {
    let heads = &evaluation.heads;
    let of_head = |head: &HeadEvaluation| -> Vec<(usize, usize)> {
        head.multi.folds.iter().map(|fold| (fold.repeat, fold.fold)).collect()
    };
    let keys: BTreeSet<(usize, usize)> = heads.iter().flat_map(of_head).collect();
    if evaluation.protocol.is_none() || keys.is_empty() {
        return String::new();
    }
    let group = |head: &HeadEvaluation| {
        let columns = if head.single.is_some() { 4 } else { 2 };
        format!("<th scope=\"colgroup\" colspan=\"{columns}\">{}</th>", head.head.as_str().to_uppercase())
    };
    let columns = |head: &HeadEvaluation| {
        let single = "<th scope=\"col\">Single</th><th scope=\"col\">Difference</th>";
        let single = if head.single.is_some() { single } else { "" };
        format!("<th scope=\"col\" class=\"first\">Multi</th>{single}<th scope=\"col\">T</th>")
    };
    let cells = |head: &HeadEvaluation, repeat: usize, fold: usize| {
        let find = |arm: &Arm| arm.folds.iter().find(|one| (one.repeat, one.fold) == (repeat, fold)).copied();
        let multi = find(&head.multi);
        let single = head.single.as_ref().map_or_else(String::new, |single| {
            let difference = head.difference(repeat, fold).map(|difference| format!("{difference:+.3}"));
            let single = figure(find(single).map(|one| one.macro_f1));
            format!("<td>{single}</td><td>{}</td>", difference.unwrap_or_else(|| "–".to_owned()))
        });
        let temperature = multi.map_or_else(|| "–".to_owned(), |one| format!("{:.2}", one.temperature));
        let multi = figure(multi.map(|one| one.macro_f1));
        format!("<td class=\"first\">{multi}</td>{single}<td>{temperature}</td>")
    };
    let row = |(repeat, fold): &(usize, usize)| {
        let cells: String = heads.iter().map(|head| cells(head, *repeat, *fold)).collect();
        format!("<tr><th scope=\"row\">{} / {}</th>{cells}</tr>\n", repeat + 1, fold + 1)
    };
    format!(
        "<section aria-labelledby=\"folds\">\n<h2 id=\"folds\">Every fold</h2>\n<div class=\"wide\"><table>\n\
         <caption>Macro F1 of the test part of each fold, and T, the temperature that the multi-task \
         network got from a part of its training images</caption>\n<thead><tr><th scope=\"col\" rowspan=\"2\">\
         Repeat / fold</th>{}</tr>\n<tr>{}</tr></thead>\n<tbody>\n{}</tbody></table></div>\n</section>\n",
        heads.iter().map(group).collect::<String>(),
        heads.iter().map(columns).collect::<String>(),
        keys.iter().map(row).collect::<String>()
    )
}

pub(super) fn data(evaluation: &Evaluation) -> String {
    let data = &evaluation.data;
    let rows: String = data
        .grades
        .iter()
        .map(|head| {
            let classes: Vec<String> = head
                .classes
                .iter()
                .map(|class| {
                    format!("<span class=\"chip\"><b>{}</b> {}</span>", escape(&class.class), class.images)
                })
                .collect();
            format!(
                "<tr><th scope=\"row\">{}</th><td class=\"text chips\">{}</td><td>{}</td></tr>\n",
                name(head.head),
                classes.join(" "),
                head.without_grade
            )
        })
        .collect();
    let groups = match (data.groups, evaluation.protocol) {
        (0, None) => "The labels name no embryo or patient.".to_owned(),
        (0, Some(_)) => {
            "The labels name no embryo or patient, so pictures of one embryo may be on both sides \
                         of a cut, which flatters the figures."
                .to_owned()
        }
        (groups, None) => format!("The labels name {groups} embryos or patients."),
        (groups, Some(_)) => {
            format!("The labels name {groups} embryos or patients; none is on both sides of a cut.")
        }
    };
    format!(
        "<section aria-labelledby=\"data\">\n<h2 id=\"data\">The labelled images</h2>\n<p>{} images of \
         <strong>{}</strong>. {groups}</p>\n<p class=\"digest\">SHA-256 of pixels and labels: \
         <code>{}</code></p>\n<div class=\"wide\"><table>\n<caption>Images by label</caption>\n<thead><tr>\
         <th scope=\"col\">Head</th><th scope=\"col\" class=\"text\">Images of each class</th>\
         <th scope=\"col\">Without a grade</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n</section>\n",
        data.images,
        escape(&data.name),
        escape(&data.sha256)
    )
}

pub(super) fn limits(evaluation: &Evaluation) -> String {
    let mut limits = vec![
        "This is decision support: the grades are preliminary and an embryologist decides.",
        "The figures hold for images like these, from the same instruments and labelled by the same \
         people. Embryologists disagree with each other, so even a perfect grader would not reach 1.",
        "A class with few images has figures that would look quite different on other images.",
    ];
    if evaluation.protocol == Some(Protocol::FiveByTwo) {
        limits.push(
            "Every image is tested once a repeat, so it counts five times in matrices, diagrams and all \
             figures of answers taken together.",
        );
    }
    if evaluation.heads.iter().any(|head| head.paired.is_some()) {
        limits.push(
            "The test is the combined 5x2cv F test (Alpaydin 1999) at the 5 % level, once per head and not \
             corrected for their number. Not more than chance does not mean equal: ten folds of a small set \
             find large differences only.",
        );
    }
    if evaluation.abstention.as_ref().is_some_and(|abstention| abstention.risk_target.is_some()) {
        limits.push(
            "Thresholds were chosen on answers to these images; the share of wrong grades on others may be \
             higher.",
        );
    }
    let items: String = limits.iter().map(|limit| format!("<li>{limit}</li>\n")).collect();
    format!(
        "<section aria-labelledby=\"limits\">\n<h2 id=\"limits\">How to read this</h2>\n<ul>\n{items}</ul>\n\
         <p class=\"aside\">Macro F1: mean F1 of the classes, rare ones count the same. Quadratic kappa: \
         agreement beyond chance, near misses count little. ECE: mean distance of confidence and accuracy in \
         15 bins. NLL: mean negative logarithm of the probability of the true class.</p>\n</section>\n"
    )
}
