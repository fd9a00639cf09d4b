//! Reading back the weights of a network that was written here, so that training can start from them.

use std::collections::BTreeMap;

use half::f16;
use prost::Message as _;

use super::{FLOAT, FLOAT16, HALF_SUFFIX, INT64, ModelProto, TensorProto};

/// Largest file: the network in single precision with the reference of its training set is 46 MB.
const MAX_FILE_BYTES: usize = 64 << 20;
/// `TensorProto.DataType` of 8-bit integers, without and with a sign.
const QUANTISED: [i32; 2] = [2, 3];
const IS_QUANTISED: &str = "is quantised: a quantised bundle cannot be trained on, because steps as small as \
                            training takes are lost in its integers; start from the bundle it was made from";

/// Lengths of tensors and their values, row by row, by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The weights of an ONNX file that [`multitask_onnx`] wrote, whatever its storage, by the names that
/// [`WeightSource`] knows them by. Half precision is widened. The fusion layer is in two parts, as the
/// file has it: `fusion.weight.seen` and `fusion.weight.known`, the left and the right half of its
/// columns. Constants that are no weights (`map.*`, `reference.*`) are among them.
///
/// # Errors
/// A text that says what is wrong with the file, above all when it is quantised.
///
/// [`multitask_onnx`]: crate::model::multitask::multitask_onnx
/// [`WeightSource`]: crate::model::multitask::WeightSource
pub fn read_weights(data: &[u8]) -> Result<Tensors, String> {
    if data.len() > MAX_FILE_BYTES {
        return Err(format!("has {} bytes, a network of this kind at most {MAX_FILE_BYTES}", data.len()));
    }
    let model = ModelProto::decode(data).map_err(|error| format!("is not an ONNX file: {error}"))?;
    let graph = model.graph.ok_or("has no network in it")?;
    let integer = ["Quantize", "Dequantize", "QLinear", "Integer"];
    let is_integer = |op_type: &str| integer.iter().any(|part| op_type.contains(part));
    if graph.node.iter().any(|node| is_integer(&node.op_type))
        || graph.initializer.iter().any(|tensor| QUANTISED.contains(&tensor.data_type))
    {
        return Err(IS_QUANTISED.to_owned());
    }
    let mut weights = BTreeMap::new();
    for tensor in graph.initializer.iter().filter(|tensor| tensor.data_type != INT64) {
        let name = tensor.name.strip_suffix(HALF_SUFFIX).unwrap_or(&tensor.name);
        if weights.insert(name.to_owned(), tensor.read()?).is_some() {
            return Err(format!("has two tensors {name:?}"));
        }
    }
    if weights.is_empty() {
        return Err("has no weights in it".to_owned());
    }
    Ok(weights)
}

impl TensorProto {
    /// Lengths and values of a tensor of floating-point numbers.
    fn read(&self) -> Result<(Vec<usize>, Vec<f32>), String> {
        let Self { dims, data_type, name, raw_data } = self;
        let (values, rest): (Vec<f32>, &[u8]) = match *data_type {
            FLOAT => {
                let (values, rest) = raw_data.as_chunks();
                (values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(), rest)
            }
            FLOAT16 => {
                let (values, rest) = raw_data.as_chunks();
                (values.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(), rest)
            }
            other => {
                return Err(format!(
                    "tensor {name:?} has ONNX data type {other}, expected {FLOAT} (float) or {FLOAT16} (float16)"
                ));
            }
        };
        let lengths: Option<Vec<usize>> = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        let count =
            |lengths: &[usize]| lengths.iter().try_fold(1_usize, |count, dim| count.checked_mul(*dim));
        match lengths {
            Some(lengths) if rest.is_empty() && count(&lengths) == Some(values.len()) => {
                Ok((lengths, values))
            }
            _ => Err(format!(
                "tensor {name:?} is {dims:?} and has {} bytes, which do not go together",
                raw_data.len()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Dim, GraphBuilder, Storage};
    use super::*;

    /// A graph with a matrix, a bias, a constant and a shape.
    fn file(storage: Storage, matrix: &[f32]) -> Vec<u8> {
        let mut graph = GraphBuilder::new("test", storage);
        let x = graph.input("x", &[Dim::Dynamic("b"), Dim::Fixed(2)]);
        let weight = graph.weight("head.weight", &[matrix.len() / 2, 2], matrix);
        let bias = graph.weight("head.bias", &[1], &[0.1]);
        graph.constant("map.one", &[1, 1], &[0.1]);
        graph.shape("map.shape", &[0, 2]);
        let y = graph.node("head", "Gemm", &[&x, &weight, &bias], &[]);
        graph.output(&y, &[Dim::Dynamic("b"), Dim::Fixed(1)]);
        graph.finish(&[("seed", "1")])
    }

    fn read(storage: Storage, matrix: &[f32]) -> Tensors {
        read_weights(&file(storage, matrix)).unwrap()
    }

    fn changed(change: impl FnOnce(&mut ModelProto)) -> String {
        let mut model = ModelProto::decode(&*file(Storage::Single, &[1.0, 2.0])).unwrap();
        change(&mut model);
        read_weights(&model.encode_to_vec()).unwrap_err()
    }

    fn tensor(change: impl FnOnce(&mut TensorProto)) -> String {
        changed(|model| change(&mut model.graph.as_mut().unwrap().initializer[0]))
    }

    #[test]
    fn weights_are_read_back_by_name_and_shape_and_shapes_are_none() {
        let matrix = [0.1, -2.0, 1e-9, 3e38];
        let weights = read(Storage::Single, &matrix);
        assert_eq!(weights.keys().collect::<Vec<_>>(), ["head.bias", "head.weight", "map.one"]);
        assert_eq!(weights["head.weight"], (vec![2, 2], matrix.to_vec()));
        assert_eq!(weights["head.bias"], (vec![1], vec![0.1]));
    }

    #[test]
    fn half_precision_rounds_to_nearest_even_and_leaves_biases_and_constants_alone() {
        // Between 1 and 1 + 2^-10, and between 1 + 2^-10 and 1 + 2^-9: the even one is below, then above.
        let matrix = [1.0 + 0.5_f32.powi(11), 1.0 + 3.0 * 0.5_f32.powi(11), 65_504.0, 65_520.0];
        let weights = read(Storage::Half, &matrix);
        assert_eq!(
            weights["head.weight"],
            (vec![2, 2], vec![1.0, 1.0 + 0.5_f32.powi(9), 65_504.0, f32::INFINITY])
        );
        assert_eq!(weights["head.bias"], (vec![1], vec![0.1]));
        assert_eq!(weights["map.one"], (vec![1, 1], vec![0.1]));
    }

    #[test]
    fn a_quantised_file_is_refused_with_the_remedy() {
        for op_type in ["DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv"] {
            let error =
                changed(|model| op_type.clone_into(&mut model.graph.as_mut().unwrap().node[0].op_type));
            assert!(error.contains("quantised bundle cannot be trained on"), "{op_type}: {error}");
        }
        for data_type in QUANTISED {
            let error = tensor(|tensor| tensor.data_type = data_type);
            assert!(error.contains("quantised bundle cannot be trained on"), "{data_type}: {error}");
        }
    }

    #[test]
    fn a_tensor_whose_bytes_and_lengths_do_not_go_together_is_refused_by_name() {
        let wrong: [fn(&mut TensorProto); 6] = [
            |tensor| tensor.raw_data.truncate(7),
            |tensor| tensor.raw_data.clear(),
            |tensor| tensor.dims = vec![1, -2],
            |tensor| tensor.dims = vec![i64::MAX, i64::MAX, 8],
            |tensor| tensor.data_type = FLOAT16,
            |tensor| tensor.data_type = 11,
        ];
        for wrong in wrong {
            let error = tensor(wrong);
            assert!(error.contains("\"head.weight\""), "{error}");
        }
        let error =
            changed(|model| model.graph.as_mut().unwrap().initializer[1].name = "head.weight".to_owned());
        assert!(error.contains("two tensors \"head.weight\""), "{error}");
    }

    #[test]
    fn a_file_without_weights_or_beyond_the_limit_is_refused() {
        assert!(read_weights(&[]).unwrap_err().contains("no network"));
        assert!(changed(|model| model.graph.as_mut().unwrap().initializer.clear()).contains("no weights"));
        assert!(read_weights(&vec![0; MAX_FILE_BYTES + 1]).unwrap_err().contains("bytes"));
    }

    /// Whatever is read, lengths and values go together.
    fn is_refused_or_sound(data: &[u8]) -> bool {
        let sound = |(dims, values): &(Vec<usize>, Vec<f32>)| dims.iter().product::<usize>() == values.len();
        read_weights(data).map_or(true, |weights| weights.values().all(sound))
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_whatever_the_values(
            matrix in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 1..20)
                .prop_map(|half| [half.clone(), half].concat()),
        ) {
            let dims = vec![matrix.len() / 2, 2];
            let rounded: Vec<f32> = matrix.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
            prop_assert_eq!(&read(Storage::Half, &matrix)["head.weight"], &(dims.clone(), rounded));
            prop_assert_eq!(&read(Storage::Single, &matrix)["head.weight"], &(dims, matrix));
        }

        #[test]
        fn random_bytes_are_refused_or_read_without_a_panic(data in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(is_refused_or_sound(&data));
        }

        #[test]
        fn a_file_that_is_cut_off_or_damaged_is_refused_or_read_without_a_panic(
            length in 0_usize..400,
            place in 0_usize..400,
            byte in any::<u8>(),
            half in any::<bool>(),
        ) {
            let storage = if half { Storage::Half } else { Storage::Single };
            let mut data = file(storage, &[1.0, 2.0, 3.0, 4.0]);
            let place = place % data.len();
            data[place] = byte;
            data.truncate(length);
            prop_assert!(is_refused_or_sound(&data));
        }
    }
}
