//! One head in pictures and tables.

use super::{bars, escape, figure, matrix, name, reliability};
use crate::training::HeadEvaluation;
use crate::training::evaluation::Arm;

pub(super) fn section(head: &HeadEvaluation) -> String {
    let id = head.head.as_str();
    let mut figures = vec![panel(
        &matrix::confusion(&format!("{id}-multi"), "Confusion matrix, multi-task", &head.multi.figures),
        "Answers against labels, <b>multi-task</b>. Shade: share of the label's row.",
    )];
    if let Some(single) = &head.single {
        figures.push(panel(
            &matrix::confusion(&format!("{id}-single"), "Confusion matrix, single-task", &single.figures),
            "Answers against labels, <b>single-task</b>.",
        ));
    }
    figures.push(panel(
        &reliability::diagram(&format!("{id}-reliability"), &head.multi),
        &format!(
            "Is it right as often as it believes? Multi-task, \
             <span class=\"key before\"></span> as trained (ECE {:.3}), \
             <span class=\"key after\"></span> with temperature (ECE {:.3}). Larger dots hold more answers; \
             on the dashed line confidence is honest.",
            head.multi.ece_before, head.multi.figures.ece
        ),
    ));
    let arms = "<span class=\"key multi\"></span> multi-task";
    let arms = if head.single.is_some() {
        format!("{arms}, <span class=\"key single\"></span> single-task")
    } else {
        arms.to_owned()
    };
    figures.push(panel(
        &bars::recall(&format!("{id}-recall"), head),
        &format!("Share of each class that is found: {arms}."),
    ));
    if let Some(differences) = bars::differences(&format!("{id}-differences"), head) {
        let verdict =
            head.paired.map(|test| format!(" F test: {}.", escape(&test.in_words()))).unwrap_or_default();
        let caption = format!("Macro F1, multi-task less single-task, a dot per fold; line: mean.{verdict}");
        figures.push(panel(&differences, &caption));
    }
    format!(
        "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{}</h2>\n<div class=\"panels\">\n{}{}</div>\n</section>\n",
        name(head.head),
        figures.concat(),
        classes(&head.multi)
    )
}

fn panel(picture: &str, caption: &str) -> String {
    format!("<figure>{picture}<figcaption>{caption}</figcaption></figure>\n")
}

fn classes(arm: &Arm) -> String {
    let rows: String = arm
        .figures
        .classes
        .iter()
        .map(|class| {
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                escape(&class.class),
                class.support,
                figure(class.precision),
                figure(class.recall),
                figure(class.f1),
                figure(class.auc)
            )
        })
        .collect();
    format!(
        "<div class=\"panel wide\"><table class=\"small\">\n<caption>Each class against the rest, multi-task</caption>\n\
         <thead><tr><th scope=\"col\">Class</th><th scope=\"col\">Labels</th><th scope=\"col\">Precision</th>\
         <th scope=\"col\">Recall</th><th scope=\"col\">F1</th><th scope=\"col\">AUC</th></tr></thead>\n\
         <tbody>\n{rows}</tbody></table></div>\n"
    )
}
