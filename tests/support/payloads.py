"""A decoder of the viewer's payload, by its format and nothing else."""

import gzip
import json
import struct

import numpy as np


def decode(data):
    """Return the header and the arrays of a payload."""
    plain = gzip.decompress(data)
    (size,) = struct.unpack("<I", plain[:4])
    assert (4 + size) % 8 == 0
    header, at, arrays = json.loads(plain[4 : 4 + size]), 4 + size, []
    for each in header["arrays"]:
        length, planes = each["length"], {"f8": 8, "u1": 1}.get(each["kind"], each.get("planes"))
        raw = np.frombuffer(plain, np.uint8, length * planes, at).reshape(planes, length)
        at += -(-length * planes // 8) * 8
        if each["kind"] == "f8":
            arrays.append(np.ascontiguousarray(raw.T).view("<f8").ravel())
        elif each["kind"] == "u1":
            arrays.append(raw.ravel())
        else:
            codes = [sum(int(b) << 8 * k for k, b in enumerate(column)) for column in raw.T]
            steps = [code // 2 if code % 2 == 0 else -(code + 1) // 2 for code in codes]
            rows = np.array(steps, dtype=np.int64).reshape(each["rows"], each["columns"])
            for row in rows:
                row[1:] = np.cumsum(row[1:])
            arrays.append(np.cumsum(rows, axis=1))
    assert at == len(plain)
    return header, arrays
