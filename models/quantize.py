"""Makes a copy of a bundle whose ResNet computes in static int8: about three times as fast on a CPU.

Of the multitask network the convolutions become int8 (QDQ, weights per channel). Everything behind the
pooled features, the maps and the distance stay in fp32: they take no time, and their answers are what is
graded. So do the sums between the convolutions: in int8 they gain no speed and cost accuracy. Scales
are fixed here, from pictures, so an answer does not depend on the rest of its batch. For CPUs.

One command, in an environment of its own:

    python3 -m venv /tmp/memebg-quantize
    /tmp/memebg-quantize/bin/pip install numpy==2.4.6 onnx==1.23.2 onnxruntime==1.31.1 pillow==13.0.0
    /tmp/memebg-quantize/bin/python models/quantize.py BUNDLE --calibration DIR --out BUNDLE2 --measure DIR2

`--calibration` is a folder of day-5 pictures like those to be graded, at best the ones the network was
trained on; 200 of them are looked at. `--measure` says on the pictures of another folder how often the
copy gives another grade than the original, and writes that into the card of the copy. The same input
gives the same bytes on the same kind of processor.
"""

import argparse
import hashlib
import json
import logging
import os
import pathlib
import sys
import tempfile
import time

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when ONNX Runtime is imported

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image

CALIBRATION_PICTURES = 200
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
HEADS = ["exp", "icm", "te"]
MAX_NAME = 64

# "Please consider to run pre-processing": that folds batch normalisation, which these networks do not have.
logging.disable(logging.WARNING)


class Bundle:
    """A bundle whose networks are those of its manifest."""

    def __init__(self, folder):
        self.folder = folder
        self.json = self.read("manifest.json")
        self.manifest = json.loads(self.json)
        self.embedding = self.network("embedding")
        self.multitask = self.network("multitask")
        self.precision = self.manifest["files"]["multitask"]["precision"]
        if self.precision == "int8":
            sys.exit(f"{folder}: its multitask network is int8 already")

    def read(self, name):
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            sys.exit(f"{self.folder / name}: {error.strerror}")

    def network(self, role):
        file = self.manifest["files"][role]
        if "generated" in file:
            sys.exit(f"{self.folder}: its {role} network is generated from a seed, untrained: nothing to quantise")
        data = self.read(file["path"])
        digest = hashlib.sha256(data).hexdigest()
        if digest != file["sha256"]:
            sys.exit(f"{self.folder / file['path']}: sha256 is {digest}, the manifest says {file['sha256']}")
        return data

    def copy(self, out, manifest, changed):
        """Writes the bundle with another manifest and some other files. The manifest comes last: a bundle without one
        is refused, so it is there whole or not at all."""
        out.mkdir(parents=True)
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and path.name not in {*changed, "manifest.json"}:
                (out / path.name).write_bytes(path.read_bytes())
        for path, content in changed.items():
            (out / path).write_bytes(content)
        (out / "manifest.json").write_text(
            json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def session(data):
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"])


class Inputs:
    """What the multitask network is fed: pictures as the service sees them, and their embeddings."""

    def __init__(self, bundle):
        self.input = bundle.manifest["input"]
        self.embedding = session(bundle.embedding)

    def image(self, path):
        """Grey, the largest square in the centre, scaled, normalised, three times the same."""
        side = self.input["side_px"]
        image = Image.open(path).convert("L")
        crop = min(image.size)
        left, top = (image.width - crop) / 2, (image.height - crop) / 2
        image = image.resize((side, side), Image.BILINEAR, box=(left, top, left + crop, top + crop))
        grey = np.asarray(image, np.float32) / 255.0
        channels = [(grey - mean) / std for mean, std in zip(self.input["mean"], self.input["std"])]
        return np.stack(channels)[None].astype(np.float32)

    def of(self, paths):
        for path in paths:
            image = self.image(path)
            # One at a time: an embedding in dynamic int8 depends on the rest of its batch.
            (embedding,) = self.embedding.run(["embedding"], {"image": image})
            yield {"image": image, "embedding": embedding}


def pictures(folder, limit=None):
    """The pictures of a folder and of those below it, or `limit` of them evenly from first to last."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    if not paths:
        sys.exit(f"{folder}: no picture in it")
    if limit is None or len(paths) <= limit:
        return paths
    return [paths[index] for index in np.linspace(0, len(paths) - 1, limit).astype(int)]


class Reader(CalibrationDataReader):
    def __init__(self, inputs):
        self.inputs = inputs

    def get_next(self):
        return next(self.inputs, None)


def folded(model):
    """The model with constants in the type they are computed in: weights that are stored in half
    precision behind a Cast would not be seen as weights."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in constants:
            values = numpy_helper.to_array(constants[node.input[0]])
            wanted = helper.tensor_dtype_to_np_dtype(helper.get_node_attr_value(node, "to"))
            tensor = numpy_helper.from_array(values.astype(wanted), node.output[0])
            constants[tensor.name] = tensor
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)
    return model


def resnet(model):
    """Names of the nodes that the pooled features come from: of these the convolutions become int8."""
    maker = {output: node for node in model.graph.node for output in node.output}
    pools = [node for node in model.graph.node if node.op_type == "GlobalAveragePool"]
    if len(pools) != 1:
        sys.exit(f"the multitask network has {len(pools)} GlobalAveragePool nodes, expected one behind its ResNet")
    names, open_inputs = set(), list(pools[0].input)
    while open_inputs:
        node = maker.get(open_inputs.pop())
        if node is not None and node.name not in names:
            names.add(node.name)
            open_inputs.extend(node.input)
    return sorted(names)


def quantised(data, inputs):
    """The network with its ResNet in int8; everything else, metadata included, is as it was.

    `reduce_range` keeps the weights in 7 bits: without it a CPU that lacks VNNI saturates 16-bit sums
    and its answers differ from those of one that has it.
    """
    source = folded(onnx.load_model_from_string(data))
    with tempfile.TemporaryDirectory() as folder:
        plain, result = pathlib.Path(folder, "fp32.onnx"), pathlib.Path(folder, "int8.onnx")
        onnx.save_model(source, plain)
        quantize_static(
            plain,
            result,
            Reader(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=resnet(source),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
        model = onnx.load_model(result)
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    model.ir_version = source.ir_version
    del model.metadata_props[:], model.graph.value_info[:]
    model.metadata_props.extend(source.metadata_props)
    used = {node.domain for node in model.graph.node}
    domains = [domain for domain in model.opset_import if domain.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(domains)
    onnx.checker.check_model(model, full_check=True)
    return model


def opset(model):
    (version,) = [domain.version for domain in model.opset_import if domain.domain in ("", "ai.onnx")]
    return version


class Measured:
    """How a copy answers the pictures of a folder, beside the original."""

    def __init__(self, bundle, copy, inputs, paths):
        heads = bundle.manifest["heads"]
        temperatures = [heads[head]["temperature"] for head in HEADS]
        models = [session(bundle.multitask), session(copy)]
        self.count = {head: 0 for head in HEADS}
        self.same = {head: 0 for head in HEADS}
        self.largest = {head: 0.0 for head in HEADS}
        self.seconds = [0.0, 0.0]
        for number, feed in enumerate(inputs.of(paths)):
            if number == 0:
                for model in models:
                    model.run(HEADS, feed)
            # In turn, so that whatever else the machine does falls on both.
            answers = []
            for index, model in enumerate(models):
                began = time.perf_counter()
                answers.append(model.run(HEADS, feed))
                self.seconds[index] += time.perf_counter() - began
            has_letters = answers[0][0].argmax() + 1 >= 3
            for head, temperature, plain, int8 in zip(HEADS, temperatures, *answers):
                if head != "exp" and not has_letters:
                    continue
                plain, int8 = softmax(plain[0] / temperature), softmax(int8[0] / temperature)
                self.count[head] += 1
                self.same[head] += int(plain.argmax() == int8.argmax())
                self.largest[head] = max(self.largest[head], float(np.abs(plain - int8).max()))
        self.pictures = len(paths)

    def agreement(self):
        for head in (head for head in HEADS if self.count[head]):
            same, count = self.same[head], self.count[head]
            yield (
                f"{head.upper()}: the same grade for {same} of {count} ({100 * same / count:.1f} %), "
                f"largest difference of a probability {self.largest[head]:.3f}"
            )


def softmax(logits):
    exponentials = np.exp(logits - logits.max(), dtype=np.float64)
    return exponentials / exponentials.sum()


def section(bundle, calibration, measured, measured_on):
    """What the card of the copy says besides that of the original."""
    name, version = bundle.manifest["name"], bundle.manifest["version"]
    lines = [
        "",
        "## Int8 copy",
        "",
        f"This is a copy of `{name}` {version} (manifest sha256 `{hashlib.sha256(bundle.json).hexdigest()}`) with the",
        "convolutions of the multitask network in static int8, made by `models/quantize.py`, which took the scales",
        f"of the activations from {calibration}. All figures above and in the manifest are those of the original.",
    ]
    if measured:
        lines += ["", f"Against the original, on {measured.pictures} pictures of `{measured_on.name}`:", ""]
        lines += [f"- {line}" for line in measured.agreement()]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=pathlib.Path)
    parser.add_argument("--calibration", type=pathlib.Path, metavar="DIR", required=True)
    parser.add_argument("--out", type=pathlib.Path, metavar="BUNDLE2", required=True)
    parser.add_argument("--measure", type=pathlib.Path, metavar="DIR")
    options = parser.parse_args()
    if options.out.exists():
        sys.exit(f"{options.out} exists: choose a new folder")
    bundle = Bundle(options.bundle)
    name = f"{bundle.manifest['name']}-int8"
    if len(name) > MAX_NAME:
        sys.exit(f"name {name!r} would be longer than {MAX_NAME} characters")
    inputs = Inputs(bundle)
    calibration = pictures(options.calibration, CALIBRATION_PICTURES)
    test = pictures(options.measure) if options.measure else None

    model = quantised(bundle.multitask, inputs.of(calibration))
    data = model.SerializeToString(deterministic=True)
    measured = Measured(bundle, data, inputs, test) if test else None

    manifest = json.loads(bundle.json)
    manifest["name"] = name
    file = manifest["files"]["multitask"]
    file["sha256"], file["bytes"] = hashlib.sha256(data).hexdigest(), len(data)
    file["opset"], file["precision"] = opset(model), "int8"
    card = bundle.folder / "CARD.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else f"# Model card: `{name}`\n"
    looked_at = f"{len(calibration)} pictures of `{options.calibration.name}`"
    text += section(bundle, looked_at, measured, options.measure)

    changed = {manifest["files"]["embedding"]["path"]: bundle.embedding, file["path"]: data, "CARD.md": text.encode()}
    bundle.copy(options.out, manifest, changed)

    print(f"{options.out}: multitask network {len(bundle.multitask)} -> {len(data)} bytes, scales from {looked_at}")
    if measured:
        print(f"{measured.pictures} pictures of {options.measure}, {name} beside {bundle.manifest['name']}:")
        print("\n".join(measured.agreement()))
        speed = [measured.pictures / seconds for seconds in measured.seconds]
        print(f"multitask network alone: {bundle.precision} {speed[0]:.1f} images/s, int8 {speed[1]:.1f} images/s")


if __name__ == "__main__":
    main()
