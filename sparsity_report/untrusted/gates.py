"""Checked reading of untrusted files: JSON, integers, text and names.

Functions raise :class:`ValueError` with the reason; the caller adds the file name and says what to
do. A name that is too long is a finished error, since a fresh download has the same.
"""

import json
import os
import re
import stat
from collections.abc import Collection
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.untrusted import limits

_LONG_NUMBER = re.compile(rf"\d{{{limits.DIGITS + 1}}}")
# Opening a pipe without this flag blocks; Windows has no such flag.
_NONBLOCKING = getattr(os, "O_NONBLOCK", 0)
# A surrogate in JSON; a lone one cannot be encoded.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(
    path: Path,
    *,
    most: int = limits.TEXT_BYTES,
    once: bool = False,
    without: Collection[str] = (),
    finite: bool = False,
    values: int = limits.JSON_VALUES,
) -> dict[str, Any]:
    """Read a JSON file of at most `most` bytes, which must hold an object.

    The other parameters are those of :func:`parse_json`.

    Raises
    ------
    ValueError
        The file is too large, is not an object, or :func:`parse_json` refuses its content.
    OSError
        The file cannot be read.
    """
    with open_file(path) as file:
        text = file.read(most + 1)
    if len(text) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    value = parse_json(text, once=once, without=without, finite=finite, values=values)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading; opening a pipe could block for ever.

    Raises
    ------
    ValueError
        The path is a folder, a pipe, a device or a socket.
    OSError
        The file cannot be opened.
    """
    check_regular(path.stat())
    # A pipe may have replaced the file since the check.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NONBLOCKING))  # noqa: SIM115
    try:
        check_regular(os.fstat(file.fileno()))
    except ValueError:
        file.close()
        raise
    return file


def check_regular(state: os.stat_result) -> None:
    """Refuse a path that is not a regular file."""
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("it is not a regular file")


def check_name(name: str) -> str:
    """Return the name of a tensor if its length and numbers are within limits.

    Examples
    --------
    >>> check_name("layers." + "9" * 41)
    Traceback (most recent call last):
    ValueError: a name with a number of more than 40 digits
    """
    if len(name) > limits.NAME_LENGTH:
        raise SparsityReportError(
            f"{name[:40]}…: a name of {len(name):,} characters is longer than the limit of "
            f"{limits.NAME_LENGTH:,}; rename it"
        )
    if _LONG_NUMBER.search(name):
        raise ValueError(f"a name with a number of more than {limits.DIGITS} digits")
    return name


def parse_json(
    text: str | bytes,
    *,
    once: bool = False,
    without: Collection[str] = (),
    finite: bool = False,
    values: int = limits.JSON_VALUES,
) -> Any:
    r"""Return the value of a JSON text, checked against :mod:`sparsity_report.untrusted.limits`.

    Parameters
    ----------
    text : str or bytes
        Bytes are UTF-8.
    once : bool
        Refuse duplicate names in an object.
    without : collection of str
        Names to drop from every object.
    finite : bool
        Refuse ``NaN`` and ``Infinity``, which Python writes although they are not JSON.
    values : int
        Most commas, colons and opening brackets: a bound on the values before they are built.

    Raises
    ------
    ValueError
        The text is not JSON, is nested too deep, has too many values, or holds a number that is
        too long or text that is not Unicode.

    Examples
    --------
    >>> parse_json('{"rows": 3, "code": "x.py"}', without=["code"])
    {'rows': 3}
    >>> parse_json("9" * 5000)
    Traceback (most recent call last):
    ValueError: a number of 5,000 digits
    >>> parse_json(r'"\ud800"')
    Traceback (most recent call last):
    ValueError: text that is not Unicode: '\ud800'
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:  # which quotes all of the text
            raise ValueError("it is not UTF-8 text") from error
    if sum(map(text.count, ",:[{")) > values:
        raise ValueError(f"it has more than {values:,} values")

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        held = dict(pairs)
        if once and len(held) < len(pairs):
            raise ValueError("an object has a name twice")
        for name in without:
            held.pop(name, None)
        return held

    try:
        value = json.loads(
            text,
            object_pairs_hook=members if once or without else None,
            parse_int=_parse_integer,
            parse_float=_parse_finite if finite else None,
            parse_constant=_refuse_constant if finite else None,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if _SURROGATE.search(text):
        _check_text(value)
    return value


def check_nesting(value: object) -> None:
    """Refuse lists and objects that are nested deeper than the limit.

    Examples
    --------
    >>> check_nesting(json.loads("[" * 65 + "]" * 65))
    Traceback (most recent call last):
    ValueError: it is nested more than 64 deep
    """
    level, depth = [value], 0
    while containers := [each for each in level if isinstance(each, dict | list)]:
        if depth == limits.NESTING:
            raise ValueError(f"it is nested more than {limits.NESTING} deep")
        inside = (each.values() if isinstance(each, dict) else each for each in containers)
        level, depth = list(chain.from_iterable(inside)), depth + 1


def check_integer(value: object, name: str, low: int = 0, high: int = limits.VALUES) -> int:
    """Return a value if it is an integer from `low` to `high`.

    Examples
    --------
    >>> check_integer(3, "rows"), check_integer(True, "rows")
    Traceback (most recent call last):
    ValueError: rows is true, not a whole number
    >>> check_integer(-1, "rows")
    Traceback (most recent call last):
    ValueError: rows is -1, not a whole number from 0 to 9,223,372,036,854,775,807
    """
    if type(value) is int and low <= value <= high:
        return value
    text = printable(json.dumps(value, default=lambda other: type(other).__name__), 60)
    between = f" from {low:,} to {high:,}" if type(value) is int else ""
    raise ValueError(f"{name} is {text}, not a whole number{between}")


def _parse_integer(digits: str) -> int:
    if len(digits) > limits.DIGITS:
        raise ValueError(f"a number of {len(digits.lstrip('-')):,} digits")
    return int(digits)


def _parse_finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:40]} is beyond all floating-point numbers")
    return number


def _refuse_constant(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def _check_text(value: object) -> None:
    """Refuse lone surrogates, which cannot be encoded."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text that is not Unicode: {error.object[error.start]!r}") from error
