//! Everything the models say of one picture: for evaluation and for explanations, off the hot path.

use super::contract::{EMBEDDING, HEADS, MAPS};
use super::manifest::Manifest;
use super::multitask::{EMBEDDING_WIDTH, MAP_SIDE};
use super::runs::Run;
use super::session::{OnnxGrader, load};
use super::{ModelError, ModelSettings};
use crate::domain::{Expansion, GradeClass, Letter, Picture};
use crate::pipeline::grade::{GraderError, NotFinite};

const CELLS: usize = MAP_SIDE * MAP_SIDE;

/// What the models say of one picture, before temperature and thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Logits of expansion 1 to 6.
    pub exp: Vec<f32>,
    /// Logits of the inner cell mass, A to C, whatever the expansion.
    pub icm: Vec<f32>,
    /// Logits of the trophectoderm, A to C, whatever the expansion.
    pub te: Vec<f32>,
    /// The DINOv2 embedding, 384 values.
    pub embedding: Vec<f32>,
    /// Mahalanobis distance of the embedding from the training set, where the network knows it.
    pub distance: Option<f32>,
    /// Where EXP, ICM and TE looked, where the network says so.
    pub maps: Option<[Map; 3]>,
}

/// A class-activation map: what each of 7 x 7 parts of the picture adds to a logit; never negative.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    cells: Vec<f32>,
}

impl Map {
    /// A map of 7 x 7 cells, row by row from the top left. `None` with another number of cells.
    #[must_use]
    pub fn new(cells: Vec<f32>) -> Option<Self> {
        (cells.len() == CELLS).then_some(Self { cells })
    }

    /// The cells, row by row from the top left.
    #[must_use]
    pub fn cells(&self) -> &[f32] {
        &self.cells
    }

    /// The largest cell.
    #[must_use]
    pub fn max(&self) -> f32 {
        self.cells.iter().copied().fold(0.0, f32::max)
    }

    /// The value at a place of the picture, 0 to 1 from its top left corner: bilinear between the
    /// centres of the cells, constant from the outermost centres to the edge.
    #[must_use]
    pub fn at(&self, x: f64, y: f64) -> f64 {
        let (left, x) = between_cells(x);
        let (top, y) = between_cells(y);
        let cell = |column: usize, row: usize| {
            let cell = self.cells.get(row.min(MAP_SIDE - 1) * MAP_SIDE + column.min(MAP_SIDE - 1));
            f64::from(cell.copied().unwrap_or_default())
        };
        let along = |row: usize| cell(left, row) * (1.0 - x) + cell(left + 1, row) * x;
        along(top) * (1.0 - y) + along(top + 1) * y
    }
}

/// The cell whose centre lies before a coordinate, and how far it is to the next one, 0 to 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 6")]
fn between_cells(coordinate: f64) -> (usize, f64) {
    let position = (coordinate * MAP_SIDE as f64 - 0.5).clamp(0.0, (MAP_SIDE - 1) as f64);
    (position as usize, position.fract())
}

/// Loads one warm grader that can be asked for [`Answer`]s.
///
/// # Errors
/// As [`load_graders`].
///
/// [`load_graders`]: super::load_graders
pub fn load_examiner(settings: &ModelSettings) -> Result<OnnxGrader, ModelError> {
    let mut graders = load(&ModelSettings { graders: 1, ..settings.clone() })?;
    graders.pop().ok_or_else(|| ModelError::Settings("graders is 0, expected 1".to_owned()))
}

impl OnnxGrader {
    /// Everything the models say of one picture.
    ///
    /// # Errors
    /// When the picture has another size, a model cannot be run, or a logit or the embedding is not
    /// finite.
    pub fn answer(&mut self, picture: &Picture) -> Result<Answer, GraderError> {
        let maps = self.has_maps();
        let networks = &mut self.networks;
        networks.images.fill(&[picture])?;
        let run = |sizes: &[usize]| Run { first_frame: 0, frames: sizes.first().copied().unwrap_or(1) };
        networks.embed(run(&networks.embedding.sizes))?;
        let said = networks.opine(run(&networks.multitask.sizes))?;
        let of = |name: &str, width: usize| -> Result<Vec<f32>, GraderError> {
            said.output(name, width).map(|values| values.iter().copied().take(width).collect())
        };
        let [exp, icm, te] = HEADS;
        let answer = Answer {
            exp: of(exp, Expansion::ALL.len())?,
            icm: of(icm, Letter::ALL.len())?,
            te: of(te, Letter::ALL.len())?,
            embedding: said.embeddings.iter().copied().take(EMBEDDING_WIDTH).collect(),
            distance: said.distances()?.and_then(|distances| distances.first().copied()),
            maps: if maps {
                let [exp, icm, te] = MAPS.map(|name| of(name, CELLS).map(|cells| Map { cells }));
                Some([exp?, icm?, te?])
            } else {
                None
            },
        };
        let values = [&answer.exp, &answer.icm, &answer.te, &answer.embedding];
        if values.into_iter().flatten().all(|value| value.is_finite()) {
            return Ok(answer);
        }
        Err(GraderError(format!("{NotFinite}, or its {EMBEDDING} is not")))
    }

    /// What the bundle says of itself: its temperatures and limits above all.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the network says where its heads looked.
    #[must_use]
    pub fn has_maps(&self) -> bool {
        self.networks.extras.maps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_its_value_at_the_centre_of_a_cell_and_half_of_it_halfway_to_the_next() {
        let mut cells = vec![0.0; CELLS];
        // Row 2, column 5.
        cells[2 * 7 + 5] = 8.0;
        let map = Map::new(cells).unwrap();
        let at = |column: f64, row: f64| map.at((column + 0.5) / 7.0, (row + 0.5) / 7.0);
        for (column, row, expected) in
            [(5.0, 2.0, 8.0), (4.5, 2.0, 4.0), (5.0, 2.5, 4.0), (5.5, 1.5, 2.0), (2.0, 5.0, 0.0)]
        {
            assert!((at(column, row) - expected).abs() < 1e-6, "{column} {row}: {}", at(column, row));
        }
    }

    #[test]
    fn a_map_is_constant_from_its_outermost_centres_to_the_edge() {
        let map = Map::new((0..CELLS).map(|cell| cell as f32).collect()).unwrap();
        assert_eq!((map.at(0.0, 0.0), map.at(1.0, 1.0)), (0.0, 48.0));
        assert_eq!(map.at(0.0, 1.0), 42.0);
        assert!(Map::new(vec![0.0; 48]).is_none());
    }
}
