"""Makes a copy of a bundle that computes in half precision, for a GPU.

Both backbones become fp16, weights and arithmetic; sums inside a kernel stay in single precision on a GPU. What
follows the pooled features of the multitask network (embedding layers, heads, maps, distance) stays in fp32, as do
the inputs and outputs: it takes no time, and its answers are what is graded. On a CPU fp16 is slower than fp32.

One command, in an environment of its own:

    python3 -m venv /tmp/memebg-half
    /tmp/memebg-half/bin/pip install numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 pillow==13.0.0
    /tmp/memebg-half/bin/python models/half.py BUNDLE --out BUNDLE2

BUNDLE must not be int8. How often the copy gives another grade than the original is measured where it runs:
`memebg grade --json` with either bundle, on the same pictures.
"""

import argparse
import hashlib
import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantize import MAX_NAME, Bundle, folded, opset, resnet

PRECISION = "fp16"


def halved(data, backbone):
    """The network with the nodes that `backbone` names in half precision, and casts around them."""
    model = folded(onnx.load_model_from_string(data))
    graph, names = model.graph, backbone(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    inside = [node for node in graph.node if node.name in names]
    made = {output for node in inside for output in node.output}
    halves, nodes = {}, []
    for node in graph.node:
        if node.name not in names:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name in made or not name or (name in constants and constants[name].data_type != TensorProto.FLOAT):
                continue
            half = f"{name}.half"
            if half not in halves:
                halves[half] = name
                if name not in constants:
                    nodes.append(helper.make_node("Cast", [name], [half], half, to=TensorProto.FLOAT16))
            node.input[index] = half
        nodes.append(node)
    asked = {name for node in graph.node if node.name not in names for name in node.input}
    leaving = made & (asked | {output.name for output in graph.output})
    after = []
    for node in nodes:
        after.append(node)
        for index, name in enumerate(node.output):
            if node.name in names and name in leaving:
                half = f"{name}.half"
                node.output[index] = half
                after.append(helper.make_node("Cast", [half], [name], f"{name}.single", to=TensorProto.FLOAT))
    for node in inside:
        for index, name in enumerate(node.input):
            if name in leaving:
                node.input[index] = f"{name}.half"
    used = {name for node in after for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    for half, name in halves.items():
        if name in constants:
            tensors.append(numpy_helper.from_array(numpy_helper.to_array(constants[name]).astype(np.float16), half))
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(after)
    graph.initializer.extend(tensors)
    onnx.checker.check_model(model, full_check=True)
    return model


def every_node(model):
    """Names of all nodes."""
    return {node.name for node in model.graph.node}


def section(bundle):
    """What the card of the copy says besides that of the original."""
    name, version = bundle.manifest["name"], bundle.manifest["version"]
    return (
        "\n## Half precision\n\n"
        f"This is a copy of `{name}` {version} (manifest sha256 `{hashlib.sha256(bundle.json).hexdigest()}`) with both\n"
        "backbones in fp16, made by `models/half.py` for a GPU. All figures above and in the manifest are those of the\n"
        "original.\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, metavar="BUNDLE2", required=True)
    options = parser.parse_args()
    if options.out.exists():
        sys.exit(f"{options.out} exists: choose a new folder")
    bundle = Bundle(options.bundle)
    for role in ("embedding", "multitask"):
        if bundle.manifest["files"][role]["precision"] != "fp32":
            sys.exit(f"{options.bundle}: its {role} network is not fp32, and only that can be halved")
    name = f"{bundle.manifest['name']}-{PRECISION}"
    if len(name) > MAX_NAME:
        sys.exit(f"name {name!r} would be longer than {MAX_NAME} characters")
    models = {"embedding": halved(bundle.embedding, every_node), "multitask": halved(bundle.multitask, resnet)}

    manifest = json.loads(bundle.json)
    manifest["name"] = name
    card = bundle.folder / "CARD.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# Model card: `{name}`\n"
    written = {"CARD.md": (text + section(bundle)).encode()}
    for role, model in models.items():
        file, data = manifest["files"][role], model.SerializeToString(deterministic=True)
        file["sha256"], file["bytes"] = hashlib.sha256(data).hexdigest(), len(data)
        file["opset"], file["precision"] = opset(model), PRECISION
        written[file["path"]] = data
    bundle.copy(options.out, manifest, written)
    for role in models:
        print(f"{options.out}: {role} network {manifest['files'][role]['bytes']} bytes")


if __name__ == "__main__":
    main()
