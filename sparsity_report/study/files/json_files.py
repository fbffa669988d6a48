"""Studies and pairs as JSON files that are read back exactly.

A file holds the SHA-256 digest of its content as JSON without white space and with sorted names,
so a formatter may lay it out anew. The digest reveals edits. It is not a signature. Sections and
columns that this release does not know are left out, and a note names them.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sparsity_report
from sparsity_report.errors import SparsityReportError, opening
from sparsity_report.study import schema
from sparsity_report.study.comparison import Study
from sparsity_report.study.files.value_bounds import check_pair, check_study
from sparsity_report.study.layers import with_shares
from sparsity_report.study.levels.levels import LEVEL_COUNTS, level_matrices, level_rows
from sparsity_report.study.notes import EDITED_PAIR, EDITED_STUDY
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer, open_file, read_json
from sparsity_report.words.sentences import say


@dataclass(frozen=True)
class FileKind:
    """The content of one kind of file.

    Attributes
    ----------
    name : str
        ``"study"`` or ``"pair"``.
    value : type
        The class of the value that the file holds.
    tables : mapping of str to str
        Tables that are stored: the attribute of the value, and the table of the schema.
    derived : mapping of str to str
        Tables that follow from those, repeated for other programs and checked when read.
    edited : str
        Key of the note about a file whose content does not match its digest.
    check : callable
        Refuse a value whose numbers are impossible.
    settings : tuple of str
        Attributes that are plain values.
    """

    name: str
    value: type[Any]
    tables: Mapping[str, str]
    derived: Mapping[str, str]
    edited: str
    check: Callable[[Any], None]
    settings: tuple[str, ...] = ()

    @property
    def format(self) -> str:
        """The text by which a program recognizes the file."""
        return f"sparsity-report/{self.name}"


# Content of every file besides tables and settings.
_COMMON = ("format", "version", "written_by", "digest", "notes", "findings")
# Bytes in which a JSON object begins, after white space.
_BEGINNING = 64
#: Tables that may be null.
MAYBE = ("levels", *schema.OPTIONAL)
STUDY = FileKind(
    name="study",
    value=Study,
    tables={part: part for part in ("variants", "layers", *MAYBE)},
    derived={part: part for part in ("groups", "totals")},
    edited=EDITED_STUDY,
    check=check_study,
    settings=("convention", "context"),
)
PAIR = FileKind(
    name="pair",
    value=Pair,
    tables={
        **{part: f"pair_{part}" for part in ("models", "layers", "removed")},
        **dict.fromkeys(schema.SIDES, "layers"),
    },
    derived={part: f"pair_{part}" for part in ("survival", "groups", "totals", "sparsities")},
    edited=EDITED_PAIR,
    check=check_pair,
)
KINDS = (STUDY, PAIR)


def content_of(value: Study | Pair, findings: Sequence[str]) -> dict[str, Any]:
    """Return the content of a file, with its digest.

    Parameters
    ----------
    value : Study or Pair
    findings : sequence of str
        Sentences about the value.
    """
    kind = PAIR if isinstance(value, Pair) else STUDY
    tables = {**kind.tables, **kind.derived}
    data = {
        "format": kind.format,
        "version": schema.VERSION,
        "written_by": f"sparsity-report {sparsity_report.__version__}",
        "digest": "",
        **{name: getattr(value, name) for name in kind.settings},
        "notes": list(value.notes),
        "findings": list(findings),
        **{part: _plain(table, getattr(value, part)) for part, table in tables.items()},
    }
    data["digest"] = digest_of(data)
    return data


def read_study(path: str | os.PathLike[str], *, strict: bool = False) -> Study:
    """Read a study that :meth:`Study.save` wrote.

    The tables of sums are computed again and must agree with the file. The file also holds a
    digest of its content. If the digest differs, ``study.notes`` and every report say that the
    study was edited. A formatter may lay the file out anew; writing a number in another way, such
    as 1 for 1.0, is an edit. The digest is not a signature: anyone can compute it.

    Parameters
    ----------
    path : path-like
        A JSON file.
    strict : bool, default False
        Refuse a study that was edited.

    Returns
    -------
    Study
        The study as it was saved, without its weights.

    Raises
    ------
    SparsityReportError
        The file is not a study, is damaged, comes from another version, or contradicts itself.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import sparsity_report as sr
    >>> study = sr.compare(sr.dense(sr.load()))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read = sr.read_study(study.save(pathlib.Path(folder, "study.json")))
    >>> read.layers.equals(study.layers)
    True
    """
    study: Study = _read(Path(path), (STUDY,), strict)
    return study


def read_pair(path: str | os.PathLike[str], *, strict: bool = False) -> Pair:
    """Read a pair of checkpoints that :meth:`Pair.save` wrote.

    The tables of sums are computed again and must agree with the file. If the digest of the
    content differs, ``pair.notes`` and every report say that the pair was edited.

    Parameters
    ----------
    path : path-like
        A JSON file.
    strict : bool, default False
        Refuse a pair that was edited.

    Returns
    -------
    Pair
        The pair as it was saved.

    Raises
    ------
    SparsityReportError
        The file is not a pair, is damaged, comes from another version, or contradicts itself.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pair = sr.compare_checkpoints(weights, sr.n_m(weights, 2, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read = sr.read_pair(pair.save(pathlib.Path(folder, "pair.json")))
    >>> read.layers.equals(pair.layers)
    True
    """
    pair: Pair = _read(Path(path), (PAIR,), strict)
    return pair


def value_or_saved(function: str, value: object, *types: type) -> Any:
    """Return a value of one of the types, or the study or pair that a path names.

    Parameters
    ----------
    function : str
        Public function that received the value, for error messages.
    value : object
    *types : type
        Types that the function accepts.

    Raises
    ------
    SparsityReportError
        The value has another type, or the file cannot be read.

    Examples
    --------
    >>> value_or_saved("explore", [], Study)
    Traceback (most recent call last):
    sparsity_report.errors.SparsityReportError: explore: list is not Study; give a Study or the ...
    """
    kinds = [kind for kind in KINDS if kind.value in types]
    if isinstance(value, str | os.PathLike) and kinds:
        return _read(Path(value), kinds, strict=False)
    if not isinstance(value, types):
        names = " or ".join(each.__name__ for each in types)
        path = " or the path of a saved one" if kinds else ""
        raise SparsityReportError(
            f"{function}: {type(value).__name__} is not {names}; give a {names}{path}"
        )
    return value


def digest_of(data: Mapping[str, Any]) -> str:
    """Return the digest of a file's content, without the digest that it holds.

    Examples
    --------
    >>> one, other = {"a": 1, "b": [0.5]}, {"b": [0.5], "a": 1, "digest": "any"}
    >>> digest_of(one) == digest_of(other)
    True
    """
    content = {name: value for name, value in data.items() if name != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(source: Path, kinds: Sequence[FileKind], strict: bool) -> Any:
    with opening(source, kinds[0].name):
        _check_beginning(source, kinds[0])
        data = read_json(source, most=limits.STUDY_BYTES, once=True, finite=True)
    kind = next((each for each in kinds if data.get("format") == each.format), kinds[0])
    with opening(source, kind.name):
        _check_format(source, kind, data)
        notes = _read_texts("notes", data["notes"])
        if data.get("digest") != digest_of(data):
            if strict:
                raise SparsityReportError(
                    f"{source}: the {kind.name} was edited by hand after it was written; save the "
                    f"{kind.name} again, or read it without strict"
                )
            notes = (*notes, say(kind.edited))
        tables = {part: _read_table(kind, part, data) for part in kind.tables}
        if names := list(_unread(kind, data)):
            notes = (say("note.unread_parts", names=names), *notes)
        settings = {name: data[name] for name in kind.settings}
        value = kind.value(**tables, **settings, notes=notes)
        kind.check(value)
        for part, table in {**kind.tables, **kind.derived}.items():
            if part in kind.derived or table == "layers":
                _check_same(part, schema.plain_table(getattr(value, part)), data[part])
    return value


def _check_beginning(source: Path, kind: FileKind) -> None:
    """Refuse a folder, and a file that does not begin as a JSON object does."""
    if source.is_dir():
        raise SparsityReportError(f"{source} is a folder; give the {kind.name}.json in it")
    with open_file(source) as file:
        if not file.read(_BEGINNING).lstrip().startswith(b"{"):
            raise _other_file(source, kind)


def _other_file(source: Path, kind: FileKind) -> SparsityReportError:
    return SparsityReportError(
        f"{source}: is not a {kind.name} of sparsity-report; give a {kind.name}.json that "
        f"{kind.name}.save or the command line wrote"
    )


def _check_format(source: Path, kind: FileKind, data: Mapping[str, Any]) -> None:
    """Refuse a file of another kind or version."""
    name = data.get("format")
    for other in KINDS:
        if other is not kind and name == other.format:
            raise SparsityReportError(
                f"{source}: holds a {other.name}, not a {kind.name}; read it with read_{other.name}"
            )
    if name != kind.format:
        raise _other_file(source, kind)
    if (version := check_integer(data["version"], "version", low=1)) != schema.VERSION:
        age, advice = "older", f"make the {kind.name} again from its model"
        if version > schema.VERSION:
            age, advice = "newer", "upgrade sparsity-report"
        raise SparsityReportError(
            f"{source}: format version {version} is {age} than this program's {schema.VERSION}; "
            f"{advice}"
        )
    _read_texts("findings", data["findings"])


def _read_texts(name: str, data: Any) -> tuple[str, ...]:
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise ValueError(f"{name}: are not a list of texts")
    return tuple(data)


def _plain(table: str, frame: pd.DataFrame | None) -> dict[str, Any] | None:
    """Return a table as JSON values; levels as one row of counts per module, which is shorter."""
    if frame is None or table != "levels":
        return None if frame is None else schema.plain_table(frame)
    names, sparsities, counts = level_matrices(frame)
    rows = {name: numbers.tolist() for name, numbers in counts.items()}
    return {"modules": names, "sparsities": sparsities, **rows}


def _read_table(kind: FileKind, part: str, content: Mapping[str, Any]) -> pd.DataFrame | None:
    """Return a table from JSON values; None for one that is null."""
    table = kind.tables[part]
    if (data := content[part]) is None and part in MAYBE:
        return None
    if table == "levels":
        return _read_levels(data)
    frame = schema.read(table, data)
    return with_shares(frame) if table == "layers" else frame


def _unread(kind: FileKind, data: Mapping[str, Any]) -> Iterator[str]:
    """Yield sections and columns of a file that this release does not know."""
    tables = {**kind.tables, **kind.derived}
    yield from (name for name in data if name not in {*_COMMON, *kind.settings, *tables})
    for part, table in tables.items():
        columns = (data.get(part) or {}).get("columns", [])
        yield from (f"{part}.{name}" for name in columns[len(schema.TABLES[table]) :])


def _read_levels(matrix: Mapping[str, Any]) -> pd.DataFrame:
    modules, sparsities = matrix["modules"], matrix["sparsities"]
    counts = {name: np.array(matrix[name]) for name in LEVEL_COUNTS}
    for name, numbers in counts.items():
        if numbers.shape != (len(modules), len(sparsities)) or numbers.dtype.kind != "i":
            raise ValueError(f"levels, {name}: is not one whole number per module and sparsity")
    return level_rows(modules, sparsities, *counts.values())


def _check_same(part: str, computed: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuse a table of a file that does not follow from the other tables."""
    names, later = computed["columns"], saved["columns"]
    shared = min(len(names), len(later))
    same = names[:shared] == later[:shared] and len(computed["rows"]) == len(saved["rows"])
    if not same:
        raise ValueError(f"table {part} does not follow from the others")
    for number, (due, row) in enumerate(zip(computed["rows"], saved["rows"], strict=True)):
        if row[:shared] != due[:shared]:
            cells = zip(names, row, due, strict=False)
            name, have, want = next(cell for cell in cells if cell[1] != cell[2])
            raise ValueError(f"{part}, row {number}, {name}: {have!r} should be {want!r}")
