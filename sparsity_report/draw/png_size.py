"""Smaller PNG files of charts: without the opacity channel and compressed again."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Eight bits per channel, not interlaced: with opacity and without.
_RGBA, _RGB = (8, 6, 0, 0, 0), (8, 2, 0, 0, 0)


def opaque(png: bytes) -> bytes:
    """Return the same picture in about a quarter of the bytes of vl-convert's PNG.

    Rows of a PNG hold differences within a channel, so a channel can be removed from them.

    Parameters
    ----------
    png : bytes
        Opaque picture with an opacity channel; other kinds of PNG are returned unchanged.

    Returns
    -------
    bytes
        The PNG without the opacity channel.
    """
    chunks = list(_chunks(png))
    width, height, *kind = struct.unpack(">IIBBBBB", chunks[0][1])
    if tuple(kind) != _RGBA:
        return png
    data = zlib.decompress(b"".join(body for name, body in chunks if name == b"IDAT"))
    rows = np.frombuffer(data, np.uint8).reshape(height, 1 + 4 * width)
    colors = rows[:, 1:].reshape(height, width, 4)[..., :3].reshape(height, 3 * width)
    packed = zlib.compress(np.hstack([rows[:, :1], colors]).tobytes(), 9)
    head = struct.pack(">IIBBBBB", width, height, *_RGB)
    return _SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(png):
        length, name = struct.unpack(">I4s", png[at : at + 8])
        yield name, png[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(name + body))
