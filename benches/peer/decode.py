"""Decoding and preparing one JPEG as the Python worker does it, with Pillow or with OpenCV.

    decode.py IMAGE SIDE_PX

Answers each line on standard input with one line: `pillow N` and `opencv N` with the seconds that N images took,
`tensor pillow FILE` and `tensor opencv FILE` by writing the tensor, 3 x SIDE x SIDE float32, to FILE.
"""

import io
import pathlib
import sys
import time

import cv2
import numpy as np
from PIL import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

cv2.setNumThreads(1)
data, side = pathlib.Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
# A grey picture three times: normalising is a table of 256 values per channel.
scale = np.arange(256, dtype=np.float32) / 255.0
tables = [((scale - mean) / std).astype(np.float32) for mean, std in zip(MEAN, STD)]
tensor = np.empty((3, side, side), np.float32)


def normalised(grey):
    for table, plane in zip(tables, tensor):
        np.take(table, grey, out=plane)


def pillow():
    picture = Image.open(io.BytesIO(data)).convert("L")
    crop = min(picture.size)
    left, top = (picture.width - crop) / 2, (picture.height - crop) / 2
    box = (left, top, left + crop, top + crop)
    normalised(np.asarray(picture.resize((side, side), Image.BILINEAR, box=box)))


def opencv():
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    height, width = picture.shape
    crop = min(height, width)
    top, left = (height - crop) // 2, (width - crop) // 2
    square = picture[top : top + crop, left : left + crop]
    # The one filter of OpenCV that averages over what it leaves out.
    normalised(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA))


libraries = {"pillow": pillow, "opencv": opencv}
for line in sys.stdin:
    words = line.split()
    if words[0] == "tensor":
        libraries[words[1]]()
        tensor.tofile(words[2])
        print("written", flush=True)
        continue
    decode, count = libraries[words[0]], int(words[1])
    began = time.perf_counter()
    for _ in range(count):
        decode()
    print(time.perf_counter() - began, flush=True)
