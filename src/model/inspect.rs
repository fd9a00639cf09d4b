//! What an ONNX file says of itself, read before ONNX Runtime sees it: a file that sends the runtime
//! to other files is refused, because the digest in the manifest covers this one only.
//!
//! The messages are those of `onnx.proto` that can hold a tensor, with the fields that matter here.
//! Everything else, the weights above all, is skipped without being copied.

use prost::Message;

/// `TensorProto.DataLocation`: the values are in this file.
const INSIDE: i32 = 0;
/// A node that stands for an engine compiled elsewhere; its attribute may be a path.
const COMPILED: &str = "EPContext";
/// Marks ONNX Runtime's own format, at the place where the runtime looks for it.
const OWN_FORMAT: (std::ops::Range<usize>, &[u8]) = (4..8, b"ORTM");

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
    #[prost(message, repeated, tag = "20")]
    training_info: Vec<TrainingInfoProto>,
    #[prost(message, repeated, tag = "25")]
    functions: Vec<FunctionProto>,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct TrainingInfoProto {
    #[prost(message, optional, tag = "1")]
    initialization: Option<GraphProto>,
    #[prost(message, optional, tag = "2")]
    algorithm: Option<GraphProto>,
}

#[derive(Clone, PartialEq, Message)]
struct FunctionProto {
    #[prost(message, repeated, tag = "7")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "11")]
    attribute_proto: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "15")]
    sparse_initializer: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(message, optional, tag = "5")]
    t: Option<TensorProto>,
    #[prost(message, optional, tag = "6")]
    g: Option<GraphProto>,
    #[prost(message, repeated, tag = "10")]
    tensors: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    graphs: Vec<GraphProto>,
    #[prost(message, optional, tag = "22")]
    sparse_tensor: Option<SparseTensorProto>,
    #[prost(message, repeated, tag = "23")]
    sparse_tensors: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct SparseTensorProto {
    #[prost(message, optional, tag = "1")]
    values: Option<TensorProto>,
    #[prost(message, optional, tag = "2")]
    indices: Option<TensorProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<StringStringEntryProto>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

/// What an ONNX file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SelfDescription {
    /// Its metadata say that its weights are random.
    pub(super) untrained: bool,
}

/// Reads an ONNX file without running it.
///
/// # Errors
/// A text that says what it is instead, or what it wants to have from another file.
pub(super) fn inspect(data: &[u8]) -> Result<SelfDescription, String> {
    let (place, mark) = OWN_FORMAT;
    if data.get(place) == Some(mark) {
        return Err("is in the format of ONNX Runtime, not ONNX; export it as .onnx".to_owned());
    }
    let model = ModelProto::decode(data).map_err(|error| format!("is not an ONNX file: {error}"))?;
    let training = model.training_info.iter().flat_map(|info| [&info.initialization, &info.algorithm]);
    model.graph.iter().chain(training.flatten()).try_for_each(graph)?;
    for function in &model.functions {
        function.node.iter().try_for_each(node)?;
        function.attribute_proto.iter().try_for_each(attribute)?;
    }
    let untrained =
        model.metadata_props.iter().any(|entry| entry.key == "untrained" && entry.value == "true");
    Ok(SelfDescription { untrained })
}

fn graph(graph: &GraphProto) -> Result<(), String> {
    graph.initializer.iter().try_for_each(tensor)?;
    graph.sparse_initializer.iter().try_for_each(sparse)?;
    graph.node.iter().try_for_each(node)
}

fn node(node: &NodeProto) -> Result<(), String> {
    if node.op_type == COMPILED {
        return Err(format!(
            "node {:?} is an engine compiled for one device ({COMPILED}), which the sha256 in the manifest \
             does not cover; export the network itself",
            node.name
        ));
    }
    node.attribute.iter().try_for_each(attribute)
}

fn attribute(attribute: &AttributeProto) -> Result<(), String> {
    attribute.t.iter().chain(&attribute.tensors).try_for_each(tensor)?;
    attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors).try_for_each(sparse)?;
    attribute.g.iter().chain(&attribute.graphs).try_for_each(graph)
}

fn sparse(sparse: &SparseTensorProto) -> Result<(), String> {
    sparse.values.iter().chain(&sparse.indices).try_for_each(tensor)
}

fn tensor(tensor: &TensorProto) -> Result<(), String> {
    if tensor.data_location == INSIDE && tensor.external_data.is_empty() {
        return Ok(());
    }
    Err(format!(
        "tensor {:?} has its values in another file (external data), which the sha256 in the manifest does \
         not cover; export the network with its weights inside",
        tensor.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: i32 = 1;

    fn outside() -> TensorProto {
        TensorProto { name: "far".to_owned(), external_data: Vec::new(), data_location: OUTSIDE }
    }

    fn with_attribute(attribute: AttributeProto) -> GraphProto {
        let node = NodeProto { attribute: vec![attribute], ..NodeProto::default() };
        GraphProto { node: vec![node], ..GraphProto::default() }
    }

    fn refused(model: &ModelProto) {
        let error = inspect(&model.encode_to_vec()).unwrap_err();
        assert!(error.contains("\"far\"") && error.contains("another file"), "{error}");
    }

    #[test]
    fn values_in_another_file_are_found_wherever_a_tensor_can_be() {
        let sparse = || SparseTensorProto { values: None, indices: Some(outside()) };
        let initializer = || GraphProto { initializer: vec![outside()], ..GraphProto::default() };
        let attributes = [
            AttributeProto { t: Some(outside()), ..AttributeProto::default() },
            AttributeProto { tensors: vec![outside()], ..AttributeProto::default() },
            AttributeProto { sparse_tensor: Some(sparse()), ..AttributeProto::default() },
            AttributeProto { sparse_tensors: vec![sparse()], ..AttributeProto::default() },
            AttributeProto { g: Some(initializer()), ..AttributeProto::default() },
            AttributeProto { graphs: vec![initializer()], ..AttributeProto::default() },
        ];
        let mut graphs: Vec<GraphProto> = attributes.iter().cloned().map(with_attribute).collect();
        graphs.push(initializer());
        graphs.push(GraphProto { sparse_initializer: vec![sparse()], ..GraphProto::default() });
        for graph in graphs {
            refused(&ModelProto { graph: Some(graph.clone()), ..ModelProto::default() });
            let functions = vec![FunctionProto { node: graph.node.clone(), attribute_proto: Vec::new() }];
            if !graph.node.is_empty() {
                refused(&ModelProto { functions, ..ModelProto::default() });
            }
            let info = TrainingInfoProto { initialization: None, algorithm: Some(graph) };
            refused(&ModelProto { training_info: vec![info], ..ModelProto::default() });
        }
        for attribute in attributes {
            let functions = vec![FunctionProto { node: Vec::new(), attribute_proto: vec![attribute] }];
            refused(&ModelProto { functions, ..ModelProto::default() });
        }
    }

    #[test]
    fn a_path_is_refused_even_where_the_location_says_inside() {
        let location = StringStringEntryProto { key: "location".to_owned(), value: "weights.bin".to_owned() };
        let tensor = TensorProto { external_data: vec![location], data_location: INSIDE, ..outside() };
        let graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        refused(&ModelProto { graph: Some(graph), ..ModelProto::default() });
    }

    #[test]
    fn an_engine_compiled_elsewhere_is_refused() {
        let node = NodeProto { op_type: COMPILED.to_owned(), ..NodeProto::default() };
        let graph = GraphProto { node: vec![node], ..GraphProto::default() };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        assert!(inspect(&model.encode_to_vec()).unwrap_err().contains(COMPILED));
    }

    #[test]
    fn the_format_of_the_runtime_is_refused_even_when_it_can_be_read_as_onnx() {
        // A producer's name (field 2) that puts the mark where the runtime looks for it.
        let disguised = b"\x08\x08\x12\x04ORTM";
        assert!(ModelProto::decode(&disguised[..]).is_ok());
        assert!(inspect(disguised).unwrap_err().contains("format of ONNX Runtime"));
    }
}
