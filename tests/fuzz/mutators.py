"""Changes to bytes and JSON that are likely to hurt."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

# Numbers are written as they stand here, as no float or short int of Python could hold them all.
NUMBERS = (
    "-1", "0", "1", "2", "3", "7", "255", "65536", "2147483647", "2147483648", "4294967296",
    "1000000000", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "-9223372036854775809", "1" + "0" * 30, "9" * 5000, "-" + "9" * 5000, "0.5", "-0.0", "1e999",
    "1e-400", "NaN", "Infinity", "-Infinity", "3.0", "1e3",
)  # fmt: skip
TEXTS = (
    "", " ", "x", "\0", "\ud800", "\udfff\ud800", "\u202eabc", "../x", "/etc/passwd", "a/b", "a\\b",
    "C:\\x", "CON", "x" * 300, "x" * 70_000, "\n", "\x1b[2J", "</script>", "__proto__", "weight",
    ".", "..", "9" * 5000, "layers." + "9" * 4400 + ".weight", "model.layers.99999999999.mlp",
    "é", "e\u0301", "None", "true", "-1",
)  # fmt: skip
# Stands in a JSON text where a number is to be written as it is.
_MARK = "\ue000{}\ue001"
_MARKED = re.compile(r'"\\ue000(.*?)\\ue001"')


def number(random: Random) -> str:
    """Return a number that hurts, as JSON has it."""
    return random.choice(NUMBERS)


def damage_bytes(random: Random, data: bytes) -> bytes:
    """Return bytes with one change that knows nothing of their meaning."""
    if not data:
        return random.randbytes(random.choice((1, 8, 100)))
    start = random.randrange(len(data))
    end = min(start + random.choice((1, 2, 4, 8, 64, 1024)), len(data))
    kind = random.randrange(9)
    if kind == 0:
        changed = bytearray(data)
        changed[start] ^= 1 << random.randrange(8)
        return bytes(changed)
    if kind == 1:
        return data[:start] + random.randbytes(end - start) + data[end:]
    if kind == 2:
        return data[:start]
    if kind == 3:
        return data[:start] + data[end:]
    if kind == 4:
        return data[:end] + data[start:]
    if kind == 5:
        return data[:start] + bytes(end - start) + data[end:]
    if kind == 6:
        return data + random.randbytes(random.choice((1, 8, 4096)))
    if kind == 7:
        layout = random.choice(("<I", "<Q", ">I", ">Q"))
        size = struct.calcsize(layout)
        values = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
        packed = struct.pack(layout, random.choice(values) % 2 ** (8 * size))
        return data[:start] + packed + data[start + size :]
    other = random.randrange(len(data))
    return data[:start] + data[other : other + end - start] + data[end:]


def damage_json(random: Random, value: Any, texts: tuple[str, ...] = TEXTS) -> Any:
    """Return a JSON value with one change somewhere inside; :func:`dumped` writes it."""
    places = list(_places(value, ()))
    path = random.choice(places)
    return _changed(value, path, lambda old: _other(random, old, value, texts))


def dumped(value: Any) -> bytes:
    """Write a JSON value, hurtful numbers and halves of characters as they are.

    Examples
    --------
    >>> dumped({"rows": marked("1e999")})
    b'{"rows": 1e999}'
    """
    return _MARKED.sub(lambda found: json.loads(f'"{found[1]}"'), json.dumps(value)).encode()


def parsed(text: bytes) -> Any:
    """Return what a JSON text says; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def marked(written: str) -> str:
    """Return what :func:`dumped` writes as this, not as text."""
    return _MARK.format(written)


def deep(random: Random) -> str:
    """Return lists in lists, as JSON has them."""
    depth = random.choice((20, 100, 1000, 100_000))
    opening, closing = random.choice((("[", "]"), ('{"a":', "}")))
    return opening * depth + "1" + closing * depth


def _other(random: Random, old: Any, whole: Any, texts: tuple[str, ...]) -> Any:
    kind = random.randrange(10)
    if kind < 3:
        return marked(number(random))
    if kind == 3:
        return random.choice(texts)
    if kind == 4:
        return random.choice((None, True, False, [], {}, [old], {"a": old}, [old, old]))
    if kind == 5:
        return marked(deep(random))
    if kind == 6 and isinstance(old, int) and not isinstance(old, bool):
        return random.choice((old + 1, old - 1, -old, old * 2, old // 2, float(old), str(old)))
    if kind == 7 and isinstance(old, dict) and old:
        return _with_other_members(random, old, texts)
    if kind == 8 and isinstance(old, list) and old:
        place = random.randrange(len(old))
        return random.choice((old[:place], old[place:], old[:place] + old[place + 1 :], old[::-1]))
    return _at(whole, random.choice(list(_places(whole, ()))))


def _with_other_members(random: Random, old: dict[str, Any], texts: tuple[str, ...]) -> Any:
    name = random.choice(list(old))
    rest = {key: value for key, value in old.items() if key != name}
    kind = random.randrange(4)
    if kind == 0:
        return rest
    if kind == 1:
        return {**rest, random.choice(texts): old[name]}
    if kind == 2:
        return {**old, random.choice(texts): random.choice(list(old.values()))}
    twice = dumped(old).decode()[1:-1]
    return marked("{" + twice + ("," if twice else "") + twice + "}")


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from _places(inside, (*path, key))
    elif isinstance(value, list):
        for place, inside in enumerate(value):
            yield from _places(inside, (*path, place))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    key, *rest = path
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[key] = _changed(value[key], tuple(rest), change)
    return changed
