# SPDX-License-Identifier: Apache-2.0
"""What --dump writes and the recordings have."""
import array
import json
import pathlib
import struct
import sys


def tensors(path):
    """Name -> shape, numbers: an independent reader of what --dump writes and golden has."""
    data = pathlib.Path(path).read_bytes()
    size, = struct.unpack("<Q", data[:8])
    if size % 8:
        sys.exit(f"{path}: header of {size} bytes")
    found = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        numbers = array.array({"F32": "f", "I32": "i"}[entry["dtype"]])
        numbers.frombytes(data[8 + size + begin:8 + size + end])
        found[name] = entry["shape"], numbers
    return found
