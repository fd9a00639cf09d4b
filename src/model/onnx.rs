//! Writing ONNX files: the few message types of the format that a network needs, and a builder.
//!
//! The messages follow `onnx.proto3` of ONNX 1.16 field by field; what is not used is left out,
//! which the wire format allows. Encoding is deterministic: equal graphs give equal bytes.

mod read;

use half::f16;
use prost::Message;

pub use read::{Tensors, read_weights};

/// Opset of the standard operators.
pub const OPSET: u32 = 17;
/// Version of the file format that goes with [`OPSET`].
const IR_VERSION: i64 = 8;
/// `TensorProto.DataType`.
const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const INT32: i32 = 6;
const INT64: i32 = 7;
const FLOAT16: i32 = 10;
/// `AttributeProto.AttributeType`.
const ATTRIBUTE_INT: i32 = 2;
const ATTRIBUTE_INTS: i32 = 7;
/// What the name of a weight in half precision ends with. The name itself is that of the same weight
/// in single precision, which the network computes with.
const HALF_SUFFIX: &str = ".half";

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    r#type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
struct DimensionProto {
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    value: Option<DimensionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum DimensionValue {
    #[prost(int64, tag = "1")]
    Fixed(i64),
    #[prost(string, tag = "2")]
    Named(String),
}

/// One dimension of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dim {
    /// Always this long.
    Fixed(usize),
    /// As long as the caller likes, e.g. the batch.
    Dynamic(&'static str),
}

/// A tensor that a node has computed or that came in from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor(String);

/// An attribute of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute<'a> {
    /// One integer.
    Int(&'static str, i64),
    /// Several integers.
    Ints(&'static str, &'a [i64]),
}

/// How the weights of a network are kept in its file. It computes in single precision either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// As they are.
    Single,
    /// Rounded to half precision (IEEE 754 binary16, to nearest, ties to even) and widened again when
    /// the file is loaded: half the length. A weight beyond 65504 becomes infinite.
    Half,
}

/// Builds one graph of single-precision tensors, node by node in the order of computation. Integers are only
/// the shapes that a node reshapes to, and bytes that a table is looked up with.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: GraphProto,
    storage: Storage,
}

impl GraphBuilder {
    /// An empty graph. `name` is what a viewer shows.
    #[must_use]
    pub fn new(name: &str, storage: Storage) -> Self {
        Self { graph: GraphProto { name: name.to_owned(), ..GraphProto::default() }, storage }
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, dims: &[Dim]) -> Tensor {
        self.graph.input.push(value_info(name, dims, FLOAT));
        Tensor(name.to_owned())
    }

    /// Declares an input of bytes, and gives it as indices for a `Gather`.
    pub fn bytes(&mut self, name: &str, dims: &[Dim]) -> Tensor {
        self.graph.input.push(value_info(name, dims, UINT8));
        let bytes = Tensor(name.to_owned());
        self.node(&format!("{name}.index"), "Cast", &[&bytes], &[Attribute::Int("to", INT32.into())])
    }

    /// Adds a weight of the given shape, `values` in row-major order. One of fewer than two
    /// dimensions, such as a bias, is a [`constant`]: it is short, and added where rounding shows.
    ///
    /// [`constant`]: GraphBuilder::constant
    pub fn weight(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Tensor {
        if self.storage == Storage::Single || dims.len() < 2 {
            return self.constant(name, dims, values);
        }
        let raw_data = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        let stored = self.initializer(&format!("{name}{HALF_SUFFIX}"), dims, FLOAT16, raw_data);
        // ONNX Runtime folds what depends on constants only when it loads a file.
        self.node(name, "Cast", &[&stored], &[Attribute::Int("to", FLOAT.into())])
    }

    /// Adds a constant of the given shape, `values` in row-major order, kept as it is whatever the
    /// [`Storage`].
    pub fn constant(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Tensor {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len(), "{name}");
        self.initializer(name, dims, FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn initializer(&mut self, name: &str, dims: &[usize], data_type: i32, raw_data: Vec<u8>) -> Tensor {
        self.graph.initializer.push(TensorProto {
            dims: dims.iter().map(|dim| to_i64(*dim)).collect(),
            data_type,
            name: name.to_owned(),
            raw_data,
        });
        Tensor(name.to_owned())
    }

    /// Adds the shape that a `Reshape` takes: 0 keeps a length as it is.
    pub fn shape(&mut self, name: &str, lengths: &[usize]) -> Tensor {
        let raw_data = lengths.iter().flat_map(|length| to_i64(*length).to_le_bytes()).collect();
        self.initializer(name, &[lengths.len()], INT64, raw_data)
    }

    /// Adds a node with one output. The output carries the node's name, so that an [`output`] of
    /// the graph is the node of that name.
    ///
    /// [`output`]: GraphBuilder::output
    pub fn node(
        &mut self,
        name: &str,
        op_type: &str,
        inputs: &[&Tensor],
        attributes: &[Attribute<'_>],
    ) -> Tensor {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|tensor| tensor.0.clone()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            attribute: attributes.iter().map(AttributeProto::from).collect(),
        });
        Tensor(name.to_owned())
    }

    /// Declares a tensor as an output of the graph.
    pub fn output(&mut self, tensor: &Tensor, dims: &[Dim]) {
        self.graph.output.push(value_info(&tensor.0, dims, FLOAT));
    }

    /// The ONNX file. `metadata` are free key and value pairs kept in it.
    #[must_use]
    pub fn finish(self, metadata: &[(&str, &str)]) -> Vec<u8> {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "memebg".to_owned(),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: i64::from(OPSET) }],
            metadata_props: metadata.iter().map(entry).collect(),
        };
        model.encode_to_vec()
    }
}

impl From<&Attribute<'_>> for AttributeProto {
    fn from(attribute: &Attribute<'_>) -> Self {
        match *attribute {
            Attribute::Int(name, value) => {
                Self { name: name.to_owned(), i: Some(value), ints: Vec::new(), r#type: ATTRIBUTE_INT }
            }
            Attribute::Ints(name, values) => {
                Self { name: name.to_owned(), i: None, ints: values.to_vec(), r#type: ATTRIBUTE_INTS }
            }
        }
    }
}

fn value_info(name: &str, dims: &[Dim], elem_type: i32) -> ValueInfoProto {
    let dim = |dim: &Dim| DimensionProto {
        value: Some(match *dim {
            Dim::Fixed(length) => DimensionValue::Fixed(to_i64(length)),
            Dim::Dynamic(symbol) => DimensionValue::Named(symbol.to_owned()),
        }),
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor_type = TensorTypeProto { elem_type, shape: Some(shape) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

/// Lengths of tensors that fit in memory fit in an `i64`.
fn to_i64(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
