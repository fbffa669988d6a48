"""The gate for what comes from files that somebody else wrote: JSON, whole numbers, texts.

Everything here raises :class:`ValueError` with what is wrong; who opened the file says which it is.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Collection
from io import BufferedReader
from pathlib import Path
from typing import Any

from sparsity_report.untrusted import limits

_LONG_NUMBER = re.compile(rf"\d{{{limits.DIGITS + 1}}}")
# Windows has neither the flag nor pipes among its files.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
# Half of a character beyond 16 bits, as JSON may write it; alone it is no text.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(
    path: Path,
    *,
    most: int = limits.TEXT_BYTES,
    once: bool = False,
    without: Collection[str] = (),
    finite: bool = False,
) -> Any:
    """Read a JSON file, see :func:`parse_json`; `most` is how many bytes it may have.

    Raises
    ------
    ValueError
        It is too large, or no JSON that is read here.
    OSError
        It cannot be read.
    """
    with open_file(path) as file:
        text = file.read(most + 1)
    if len(text) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return parse_json(text, once=once, without=without, finite=finite)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read it; a pipe would keep who opens it waiting for ever.

    Raises
    ------
    ValueError
        It is a folder, a pipe, a device or a socket.
    OSError
        It cannot be opened.
    """
    check_regular(path.stat())
    # It may have become a pipe since.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE))  # noqa: SIM115
    try:
        check_regular(os.fstat(file.fileno()))
    except ValueError:
        file.close()
        raise
    return file


def check_regular(state: os.stat_result) -> None:
    """Refuse what is no regular file."""
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("it is no regular file")


def check_name(name: str) -> str:
    """Return the name of a tensor that others can work with.

    Examples
    --------
    >>> check_name("layers." + "9" * 41)
    Traceback (most recent call last):
    ValueError: a name with a number of more than 40 digits
    """
    if len(name) > limits.NAME_LENGTH:
        raise ValueError(f"a name of {len(name):,} characters")
    if _LONG_NUMBER.search(name):
        raise ValueError(f"a name with a number of more than {limits.DIGITS} digits")
    return name


def parse_json(
    text: str | bytes, *, once: bool = False, without: Collection[str] = (), finite: bool = False
) -> Any:
    r"""Return what a JSON text says, checked against :mod:`sparsity_report.untrusted.limits`.

    Parameters
    ----------
    text : str or bytes
        Bytes are UTF-8.
    once : bool
        Refuse a name that an object holds twice.
    without : collection of str
        Names that are left out of every object.
    finite : bool
        Refuse ``NaN`` and ``Infinity``, which are no JSON but which Python writes.

    Raises
    ------
    ValueError
        It is no JSON, too deep, holds a number that is too long or text that is no Unicode.

    Examples
    --------
    >>> parse_json('{"rows": 3, "code": "x.py"}', without=["code"])
    {'rows': 3}
    >>> parse_json("9" * 5000)
    Traceback (most recent call last):
    ValueError: a number of 5,000 digits
    >>> parse_json(r'"\ud800"')
    Traceback (most recent call last):
    ValueError: text that is no Unicode: '\ud800'
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        told = dict(pairs)
        if once and len(told) < len(pairs):
            raise ValueError("it says something twice")
        for name in told.keys() & without:
            del told[name]
        return told

    try:
        told = json.loads(
            text,
            object_pairs_hook=members if once or without else None,
            parse_int=_whole,
            parse_float=_finite if finite else None,
            parse_constant=_no_number if finite else None,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if _HALF.search(text):
        _check_text(told)
    return told


def check_nesting(value: object, most: int = limits.NESTING) -> None:
    """Refuse lists and objects that are nested deeper than anything known.

    Examples
    --------
    >>> check_nesting([[[]]], most=2)
    Traceback (most recent call last):
    ValueError: it is nested more than 2 deep
    """
    level = [value]
    for _ in range(most + 1):
        inside = [each for each in level if isinstance(each, dict | list)]
        if not inside:
            return
        level = [
            each
            for container in inside
            for each in (container.values() if isinstance(container, dict) else container)
        ]
    raise ValueError(f"it is nested more than {most} deep")


def whole(value: object, what: str, low: int = 0, high: int = limits.VALUES) -> int:
    """Return a whole number within bounds.

    Examples
    --------
    >>> whole(3, "rows"), whole(True, "rows")
    Traceback (most recent call last):
    ValueError: rows is true, not a whole number
    >>> whole(-1, "rows")
    Traceback (most recent call last):
    ValueError: rows is -1, not a whole number from 0 to 9,223,372,036,854,775,807
    """
    if type(value) is not int:
        raise ValueError(f"{what} is {_shown(value)}, not a whole number")
    if not low <= value <= high:
        raise ValueError(f"{what} is {_shown(value)}, not a whole number from {low:,} to {high:,}")
    return value


def _shown(value: object) -> str:
    """Show a value that may be anything in a few characters."""
    text = json.dumps(value, default=lambda other: type(other).__name__)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _whole(digits: str) -> int:
    if len(digits) > limits.DIGITS:
        raise ValueError(f"a number of {len(digits.lstrip('-')):,} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:40]} is beyond all floating-point numbers")
    return number


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no number")


def _check_text(told: object) -> None:
    """Refuse text with half a character, which no file can be written with."""
    try:
        json.dumps(told, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        near = error.object[max(error.start - 20, 0) : error.start + 20]
        half = re.search("[\ud800-\udfff]", near)
        raise ValueError(
            f"text that is no Unicode: {half[0]!r}" if half else "no Unicode"
        ) from error
