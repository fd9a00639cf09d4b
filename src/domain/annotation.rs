//! What is known of a picture beforehand, and `labels.csv`, the file that says it.

use serde::Serialize;

use super::grade::{Expansion, Letter};
use super::label::label_enum;

/// First line of a label file; [`GROUP`] may follow as a sixth column.
const HEADER: &str = "image,stage,exp,icm,te";
const GROUP: &str = ",group";
/// Most problems that are reported at once.
const MAX_PROBLEMS: usize = 50;

label_enum! {
    /// Coarse stage of development.
    DevelopmentStage {
        /// One cell.
        Zygote = "zygote",
        /// Two cells or more, each with its own outline.
        Cleavage = "cleavage",
        /// Cells compacting or compacted into one mass.
        Morula = "morula",
        /// A cavity is visible.
        Blastocyst = "blastocyst",
    }
}

/// What a photograph shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// Stage.
    pub stage: DevelopmentStage,
    /// Expansion, of a blastocyst; absent when nobody graded it.
    pub exp: Option<Expansion>,
    /// Inner cell mass, from expansion 3.
    pub icm: Option<Letter>,
    /// Trophectoderm, from expansion 3.
    pub te: Option<Letter>,
}

/// One line of a label file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Line number, from 1.
    pub line: usize,
    /// File name of the image, without a folder.
    pub image: String,
    /// What it shows.
    pub truth: Truth,
    /// Pictures of one embryo or patient share it: they never end up on both sides of a split.
    pub group: Option<String>,
}

/// A line of a label file that means no grade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelProblem {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl Label {
    /// Reads a label file: `image,stage,exp,icm,te` and optionally `group`, no quotes.
    ///
    /// # Errors
    /// Every line that means no grade, the first 50 of them.
    pub fn read_all(text: &[u8]) -> Result<Vec<Self>, Vec<LabelProblem>> {
        let alone = |problem: String| vec![LabelProblem { line: 1, problem }];
        let text = std::str::from_utf8(text).map_err(|error| alone(format!("not UTF-8: {error}")))?;
        let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
        let header = lines.next().map_or("", |(_, header)| header.trim_end());
        if header.strip_suffix(GROUP).unwrap_or(header) != HEADER {
            return Err(alone(format!("the first line is not {HEADER} or {HEADER}{GROUP}")));
        }
        let columns = header.split(',').count();
        let (mut labels, mut problems) = (Vec::new(), Vec::new());
        for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let line_number = index + 1;
            match label(line, columns) {
                Ok((image, truth, group)) => {
                    labels.push(Self { line: line_number, image: image.to_owned(), truth, group });
                }
                Err(problem) => problems.push(LabelProblem { line: line_number, problem }),
            }
            if problems.len() == MAX_PROBLEMS {
                break;
            }
        }
        if problems.is_empty() { Ok(labels) } else { Err(problems) }
    }

    /// A label file with a `group` column.
    #[must_use]
    pub fn write_all(labels: &[Self]) -> String {
        let mut text = format!("{HEADER}{GROUP}\n");
        for Self { image, truth, group, .. } in labels {
            let exp = truth.exp.map(|exp| u8::from(exp).to_string()).unwrap_or_default();
            let letter = |letter: Option<Letter>| letter.map_or("", Letter::as_str);
            let (icm, te) = (letter(truth.icm), letter(truth.te));
            let group = group.as_deref().unwrap_or_default();
            text.push_str(&format!("{image},{},{exp},{icm},{te},{group}\n", truth.stage));
        }
        text
    }
}

fn label(line: &str, columns: usize) -> Result<(&str, Truth, Option<String>), String> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    if fields.len() != columns {
        return Err(format!("{} fields instead of {columns}", fields.len()));
    }
    let [image, stage, exp, icm, te, ref group @ ..] = *fields else {
        return Err(format!("{} fields instead of {columns}", fields.len()));
    };
    if image.is_empty() || image.contains(['/', '\\']) || image.starts_with('.') {
        return Err(format!("image {image:?} is not the plain name of a file"));
    }
    let stage = DevelopmentStage::ALL
        .iter()
        .copied()
        .find(|known| known.as_str() == stage)
        .ok_or_else(|| format!("stage {stage:?} is not zygote, cleavage, morula or blastocyst"))?;
    let digit = |text: &str| text.parse::<u8>().ok().and_then(|digit| Expansion::try_from(digit).ok());
    let exp = match exp {
        "" => None,
        text => Some(digit(text).ok_or_else(|| format!("EXP {text:?} is not one of 1 to 6"))?),
    };
    let letter = |head: &str, text: &str| match text {
        "" => Ok(None),
        _ => Letter::ALL
            .iter()
            .find(|letter| letter.as_str() == text)
            .copied()
            .map(Some)
            .ok_or_else(|| format!("{head} {text:?} is not one of A, B and C")),
    };
    let (icm, te) = (letter("ICM", icm)?, letter("TE", te)?);
    if exp.is_some() && stage != DevelopmentStage::Blastocyst {
        return Err("EXP is given to an embryo that is not a blastocyst".to_owned());
    }
    if (icm.is_some() || te.is_some()) && !exp.is_some_and(Expansion::has_letters) {
        return Err("ICM and TE are defined from EXP 3 only".to_owned());
    }
    let group = group.first().filter(|group| !group.is_empty()).map(|group| (*group).to_owned());
    Ok((image, Truth { stage, exp, icm, te }, group))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Label>, Vec<LabelProblem>> {
        Label::read_all(text.as_bytes())
    }

    #[test]
    fn a_line_becomes_a_label_with_or_without_a_group() {
        let labels =
            read("image,stage,exp,icm,te\r\na.png,blastocyst,4,A,C\r\n\nb.png,cleavage,,,\n").unwrap();
        assert_eq!(labels.iter().map(|label| label.line).collect::<Vec<_>>(), [2, 4]);
        let truth = labels[0].truth;
        assert_eq!((truth.exp, truth.icm, truth.te), (Some(Expansion::E4), Some(Letter::A), Some(Letter::C)));
        assert_eq!((labels[1].truth.exp, &labels[1].group), (None, &None));
        let grouped =
            read("image,stage,exp,icm,te,group\na.png,blastocyst,2,,,E7\nb.png,morula,,,,\n").unwrap();
        assert_eq!(grouped[0].group.as_deref(), Some("E7"));
        assert_eq!(grouped[1].group, None);
    }

    #[test]
    fn every_impossible_label_is_reported_with_its_line() {
        let cases = [
            ("a.png,blastocyst,9,A,A", "EXP \"9\" is not one of 1 to 6"),
            ("a.png,blastocyst,4,D,A", "ICM \"D\" is not one of A, B and C"),
            ("a.png,blastocyst,4,A,a", "TE \"a\" is not one of A, B and C"),
            ("a.png,blastocyst,2,A,", "ICM and TE are defined from EXP 3 only"),
            ("a.png,morula,3,,", "EXP is given to an embryo that is not a blastocyst"),
            ("a.png,larva,,,", "stage \"larva\" is not"),
            ("a.png,blastocyst,4,A", "4 fields instead of 5"),
            ("../a.png,cleavage,,,", "is not the plain name of a file"),
            (",cleavage,,,", "is not the plain name of a file"),
        ];
        let lines: String = cases.iter().map(|(line, _)| format!("{line}\n")).collect();
        let problems = read(&format!("image,stage,exp,icm,te\n{lines}")).unwrap_err();
        assert_eq!(problems.len(), cases.len());
        for ((index, found), (_, problem)) in problems.iter().enumerate().zip(cases) {
            assert_eq!(found.line, index + 2);
            assert!(found.problem.contains(problem), "{}", found.problem);
        }
        assert_eq!(read("name,grade\n").unwrap_err()[0].line, 1);
        assert_eq!(Label::read_all(b"\xff").unwrap_err()[0].line, 1);
    }

    #[test]
    fn problems_are_bounded() {
        let lines = "a.png,blastocyst,9,,\n".repeat(1_000);
        assert_eq!(read(&format!("image,stage,exp,icm,te\n{lines}")).unwrap_err().len(), MAX_PROBLEMS);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let text = "image,stage,exp,icm,te,group\na.png,blastocyst,4,A,C,E1\nb.png,cleavage,,,,\n";
        assert_eq!(Label::write_all(&read(text).unwrap()), text);
    }
}
