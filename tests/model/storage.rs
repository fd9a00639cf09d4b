//! Weights in half precision: half the file, and the network that the rounded weights make.

use half::f16;
use memebg::model::load_examiner;
use memebg::model::multitask::Reference;
use memebg::model::onnx::read_weights;

use super::answers::{Wired, arbitrary};
use super::*;

/// Another source's weights, those of two or more dimensions rounded to half precision beforehand.
struct Rounded<T>(T);

impl<T: WeightSource> WeightSource for Rounded<T> {
    fn weights(&mut self, name: &str, dims: &[usize]) -> Vec<f32> {
        let mut values = self.0.weights(name, dims);
        if dims.len() > 1 {
            values.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
        }
        values
    }
}

fn reference() -> Reference {
    let values = |seed: u64, count: usize| (0..count).map(|index| arbitrary(seed, index) as f32).collect();
    Reference { mean: values(8, 384), whitening: values(9, 384 * 384) }
}

#[test]
fn a_network_stored_in_half_precision_answers_like_the_one_whose_weights_were_rounded_beforehand() {
    let reference = reference();
    let write = |weights: &mut dyn WeightSource, storage| {
        multitask_onnx(weights, std::slice::from_ref(&reference), storage, &[])
    };
    let half = write(&mut Wired::default(), Storage::Half);
    let rounded = write(&mut Rounded(Wired::default()), Storage::Single);
    let exact = write(&mut Wired::default(), Storage::Single);
    let answers = [&half, &rounded, &exact].map(|multitask| {
        let folder = tempfile::tempdir().unwrap();
        with_networks(folder.path(), &[("embedding", &small_embedding(false)), ("multitask", multitask)]);
        let mut examiner = load_examiner(&settings(folder.path())).unwrap();
        [picture(1), picture(6)].map(|picture| examiner.answer(&picture).unwrap())
    });
    let [half_answers, rounded_answers, exact_answers] = answers;
    assert_eq!(half_answers, rounded_answers);
    assert_ne!(half_answers, exact_answers);
    let share = half.len() as f64 / exact.len() as f64;
    assert!((0.5..0.51).contains(&share), "{} of {} bytes", half.len(), exact.len());
}

#[test]
fn weights_can_be_read_back_from_a_network_of_either_storage() {
    let reference = reference();
    for storage in [Storage::Single, Storage::Half] {
        let mut wired = Wired::default();
        let file = multitask_onnx(&mut wired, std::slice::from_ref(&reference), storage, &[]);
        let mut read = read_weights(&file).unwrap();
        // Its columns are in two parts, which the file has one after the other.
        let mut take = |name: &str| read.remove(name).unwrap();
        let (seen, known) = (take("fusion.weight.seen"), take("fusion.weight.known"));
        let rows = seen.1.chunks_exact(128).zip(known.1.chunks_exact(128));
        let fusion: Vec<f32> = rows.flat_map(|(seen, known)| [seen, known].concat()).collect();
        read.insert("fusion.weight".to_owned(), (vec![128, 256], fusion));
        // The reference is as it was: only weights are rounded.
        assert!(read["reference.0.mean"] == (vec![1, 384], reference.mean.clone()));
        assert!(read["reference.0.whitening"] == (vec![384, 384], reference.whitening.clone()));
        read.retain(|name, _| !name.starts_with("map.") && !name.starts_with("reference."));
        assert_eq!(read.len(), wired.0.len());
        for (name, values) in &wired.0 {
            let expected: Vec<f32> = match (storage, name.ends_with(".bias")) {
                (Storage::Half, false) => values.iter().map(|x| f16::from_f32(*x).to_f32()).collect(),
                _ => values.clone(),
            };
            let (dims, found) = &read[name];
            assert!(*found == expected, "{storage:?}, {name}");
            assert_eq!(dims.iter().product::<usize>(), found.len(), "{name}");
        }
        assert_eq!(read["stem.weight"].0, [64, 3, 7, 7]);
    }
}
