"""What a laboratory would write itself: a Python worker that grades the same frames with the same models.

It stands beside memebg as its peer in the bench and is written to be fast: librdkafka through
confluent-kafka in large reads, orjson, Pillow, ONNX Runtime with batches of 16 and one thread per core that does
not spin. Day 5, central plane; a grade event per frame; offsets are committed once the events are confirmed.
It does less than memebg: no quality gate, no abstention, no duplicates, no dead letters beyond a count, no metrics.

Prints one JSON object per line: `{"received": frames, "done": frames, "seconds": since any moment}`.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import pathlib
import signal
import time
from datetime import datetime

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when ONNX Runtime is imported

import numpy as np
import onnxruntime as ort
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from PIL import Image

READ_AT_ONCE = 500
REPORT_SECONDS = 0.02
HEADS = {"exp": ["1", "2", "3", "4", "5", "6"], "icm": ["A", "B", "C"], "te": ["A", "B", "C"]}


# The arithmetic of memebg: in single precision, with algorithms that follow from the shapes.
PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})],
}


def session(path, threads, device):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Two pools that spin keep each other from the cores: this alone nearly doubles the speed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device == "cuda":  # otherwise it would compute on the CPU without a word
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return ort.InferenceSession(path, options, providers=PROVIDERS[device])


class Grader:
    def __init__(self, bundle, threads, device, batch):
        self.manifest = json.loads((bundle / "manifest.json").read_text())
        files = self.manifest["files"]
        self.embedding = session(bundle / files["embedding"]["path"], threads, device)
        self.multitask = session(bundle / files["multitask"]["path"], threads, device)
        self.side = self.manifest["input"]["side_px"]
        # A grey picture three times: normalising is a table of 256 values per channel.
        grey = np.arange(256, dtype=np.float32) / 255.0
        channels = zip(self.manifest["input"]["mean"], self.manifest["input"]["std"])
        self.tables = [((grey - mean) / std).astype(np.float32) for mean, std in channels]
        self.digest = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
        self.grade(np.zeros((batch, 3, self.side, self.side), np.float32))

    def picture(self, image, into):
        data = base64.b64decode(image["data"])
        if hashlib.sha256(data).hexdigest() != image["sha256"]:
            raise ValueError("sha256 does not match")
        picture = Image.open(io.BytesIO(data)).convert("L")
        crop = min(picture.size)
        left, top = (picture.width - crop) / 2, (picture.height - crop) / 2
        box = (left, top, left + crop, top + crop)
        grey = np.asarray(picture.resize((self.side, self.side), Image.BILINEAR, box=box))
        for table, plane in zip(self.tables, into):
            np.take(table, grey, out=plane)

    def grade(self, images):
        (embeddings,) = self.embedding.run(["embedding"], {"image": images})
        return self.multitask.run(list(HEADS), {"image": images, "embedding": embeddings})

    def events(self, frames):
        images = np.empty((len(frames), 3, self.side, self.side), np.float32)
        for frame, into in zip(frames, images):
            self.picture(frame["image"], into)
        answers = dict(zip(HEADS, self.grade(images)))
        for index, frame in enumerate(frames):
            yield frame["embryo_id"], self.event(frame, {head: answers[head][index] for head in HEADS})

    def event(self, frame, logits):
        identity = f"{frame['embryo_id']}/{frame['run']}/{frame['focal_plane_index']}/{frame['image']['sha256']}"
        event = {
            "id": hashlib.sha256(f"{identity}/{self.digest}".encode()).hexdigest(),
            "status": "graded",
            "assessment": "preliminary",
            "site_id": frame["site_id"],
            "embryo_id": frame["embryo_id"],
            "run": frame["run"],
            "focal_plane": frame["focal_plane_index"],
            "image_sha256": frame["image"]["sha256"],
            "model": {"name": self.manifest["name"], "digest": self.digest},
        }
        for head, classes in HEADS.items():
            if head != "exp" and event["exp"]["grade"] < "3":
                continue
            scaled = logits[head] / self.manifest["heads"][head]["temperature"]
            shares = np.exp(scaled - scaled.max())
            shares /= shares.sum()
            best = int(shares.argmax())
            event[head] = {
                "grade": classes[best],
                "probabilities": dict(zip(classes, shares.tolist())),
                "confidence": float(shares[best]),
            }
        return orjson.dumps(event)


def is_wanted(frame):
    if frame["focal_plane_index"] != frame["focal_plane_count"] // 2:
        return False
    captured, inseminated = (datetime.fromisoformat(frame[at]) for at in ("captured_at", "insemination_time"))
    return 110.0 <= (captured - inseminated).total_seconds() / 3600.0 < 120.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--frames", required=True, help="topic of the frame events")
    parser.add_argument("--grades", required=True, help="topic of the grade events")
    parser.add_argument("--bundle", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=PROVIDERS, default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    running = [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())

    grader = Grader(options.bundle, options.threads, options.device, options.batch)
    producer = Producer({
        "bootstrap.servers": options.brokers,
        "enable.idempotence": True,
        "linger.ms": 5,
        "compression.type": "zstd",
        "partitioner": "murmur2_random",
    })
    consumer = Consumer({
        "bootstrap.servers": options.brokers,
        "group.id": options.group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",
        "queued.max.messages.kbytes": 65536,
        "fetch.max.bytes": 52428800,
        "max.partition.fetch.bytes": 8388608,
    })
    consumer.subscribe([options.frames])

    done = refused = 0
    reported = 0.0
    while running:
        wanted, ends, read = [], {}, 0
        for message in consumer.consume(READ_AT_ONCE, timeout=0.05):
            if message.error():
                continue
            read += 1
            ends[message.partition()] = message.offset() + 1
            try:
                frame = orjson.loads(message.value())
                if is_wanted(frame):
                    wanted.append((read, frame))
            except (ValueError, KeyError, TypeError):
                refused += 1
        if read and not done:
            report(read, 0)
        for first in range(0, len(wanted), options.batch):
            places, frames = zip(*wanted[first : first + options.batch])
            for key, event in grader.events(frames):
                producer.produce(options.grades, event, key)
            producer.poll(0)
            report(done + read, done + places[-1])
        if wanted:
            producer.flush()
        done += read
        if ends:
            offsets = [TopicPartition(options.frames, partition, end) for partition, end in ends.items()]
            consumer.commit(offsets=offsets, asynchronous=True)
        if (now := time.monotonic()) - reported > REPORT_SECONDS:
            reported = now
            report(done, done)
    consumer.close()


def report(received, done):
    print(f'{{"received":{received},"done":{done},"seconds":{time.monotonic():.6f}}}', flush=True)


if __name__ == "__main__":
    main()
