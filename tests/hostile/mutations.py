"""Damages of safetensors files, drawn at random."""

import json
import random
import struct


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One damage of a safetensors file: to its header's length, its header, its data, or its size."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    kind = draw.randrange(8)
    if kind == 0:
        return content[: draw.randrange(len(content))]
    if kind == 1:
        return struct.pack("<Q", draw.choice([0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1])) + content[8:]
    if kind == 2:
        place = draw.randrange(length)
        header = header[:place] + bytes([draw.randrange(256)]) + header[place + 1 :]
    elif kind == 3:
        return content + bytes(draw.randrange(1, 99))
    elif kind == 4:
        place = 8 + length + draw.randrange(len(data) - 4)
        return content[:place] + struct.pack("<f", draw.choice([float("nan"), float("inf")])) + content[place + 4 :]
    else:
        tree = json.loads(header)
        name = draw.choice([name for name in tree if name != "__metadata__"])
        entry = tree[name]
        if kind == 5:
            field = draw.choice(["dtype", "shape", "data_offsets"])
            values = {
                "dtype": ["F16", "I64", "F64", "BOOL", "F8_E4M3", "X", 3, "I32"],
                "shape": [[], [0], [2**62, 4], [-1], [1, *entry["shape"]], [*entry["shape"][::-1], 2], "x"],
                "data_offsets": [[0, 0], [0, 2**62], [-4, 4], [4, 0], [1, 2, 3], entry["data_offsets"][::-1]],
            }
            entry[field] = draw.choice(values[field])
        elif kind == 6:
            del tree[name]
        else:
            tree[f"{name}.other"] = tree.pop(name) if draw.random() < 0.5 else dict(entry)
        header = json.dumps(tree).encode()
    return struct.pack("<Q", len(header)) + header + data
