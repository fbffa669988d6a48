"""Texts to score: strings, files, data sets and token ids."""

import gzip
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch

from sparsity_report.errors import (
    SparsityReportError,
    explained,
    printable,
    within_memory,
    writable,
)
from sparsity_report.files.package_data import DEMO
from sparsity_report.untrusted.gates import parse_json

Text = str | Path | Iterable[str | Mapping[str, Any]] | torch.Tensor

# Most characters of a file, about 60 million tokens.
LONGEST = 2**28
# Endings by which a word is taken for the name of a file.
_TEXT_FILES = (
    *(".txt", ".text", ".md", ".rst", ".tex", ".html", ".xml", ".csv", ".tsv", ".json", ".jsonl"),
    *(".parquet", ".arrow", ".raw", ".tokens", ".gz", ".bz2", ".xz", ".zst", ".zip"),
)


@dataclass(frozen=True)
class Corpus:
    """A data set that papers score, and the rule that joins its rows to one text.

    Attributes
    ----------
    title : str
        Name in messages and tables.
    source : tuple of str
        Arguments of ``datasets.load_dataset``: repository and, if it has one, configuration.
    split : str
    rows : int
        Number of rows, or of the rows to use if `first`.
    bring : str
        File to download by hand where there is no network.
    joint : str
        Text between two rows.
    files : str
        File of the repository, where one is enough.
    first : bool
        Use the first `rows` rows of a larger set.
    """

    title: str
    source: tuple[str, ...]
    split: str
    rows: int
    bring: str
    joint: str = " "
    files: str = ""
    first: bool = False


def read_text(text: Text | None, corpus: Corpus | None = None) -> tuple[str, str | torch.Tensor]:
    """Return the name of a text, and its characters or token ids; see :func:`perplexity`.

    A string and token ids are the text itself. With a corpus, a file and items are rows, which are
    joined as the papers do. For None, the library ``datasets`` fetches the rows.

    Raises
    ------
    SparsityReportError
        The text cannot be read, or the number of rows is not that of the corpus.
    """
    if isinstance(text, str):
        if not names_file(text):
            return "text", text
        text = Path(text)
    if isinstance(text, torch.Tensor):
        return "token ids", text.reshape(-1)
    if corpus is None:
        text = DEMO / "eval.txt" if text is None else text
        if isinstance(text, Path):
            with _reading(text):
                return writable(text.name), "".join(_lines(text))
        return "dataset", "\n\n".join(_items(text))
    if text is None:
        name, rows = corpus.title, _from_datasets(corpus)
    elif isinstance(text, Path):
        with _reading(text):
            name, rows = writable(text.name), _rows_of_file(corpus, text)
    else:
        name, rows = "dataset", list(_items(text))
    if len(rows) < corpus.rows or (not corpus.first and len(rows) > corpus.rows):
        raise SparsityReportError(
            f"{printable(name, 200)} is not {corpus.title}: it has {len(rows):,} rows, not "
            f"{corpus.rows:,}; give {corpus.bring}, or in Python the joined text as a string"
        )
    return name, corpus.joint.join(rows[: corpus.rows])


def _items(text: Any) -> Iterator[str]:
    """Yield the texts of items."""
    try:
        for item in text:
            words = item["text"] if isinstance(item, Mapping) else item
            if not isinstance(words, str):
                raise TypeError(f"{type(words).__name__} is not text")
            yield words
    except (KeyError, TypeError) as error:
        raise SparsityReportError(
            f"cannot score this text: {error!r}; give a str, a Path, a tensor of token ids, or "
            "items that are texts or have a key 'text'"
        ) from error


def names_file(text: str) -> bool:
    """Return whether a string names a file; refuse the name of a missing file."""
    if os.path.exists(text) and not os.path.isdir(text):  # noqa: PTH110, PTH112 - never raise
        return True
    one_word = len(text.split()) == 1 and len(text) <= 4096
    if one_word and (set(text) & set("/\\") or text.lower().endswith(_TEXT_FILES)):
        raise SparsityReportError(
            f"there is no file {printable(text, 200)!r} to score; if this is the text itself, "
            "give it in a list: [text]"
        )
    return False


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of reading a text into an error of this package."""
    failed = f"cannot read the text {path}"
    # Readers of gzip and Parquet raise many types.
    with (
        explained(lambda error: f"{failed}: {error}; give a file of UTF-8 text", Exception),
        within_memory(failed, "read it on a larger machine"),
    ):
        yield


def _rows_of_file(corpus: Corpus, path: Path) -> list[str]:
    """Return the rows of a corpus from its file: Parquet, JSON lines or lines, gzipped or not."""
    if path.suffix.lower() == ".parquet":
        return [*islice(_within_limit(path, _parquet_texts(path)), corpus.rows + 1)]
    lines = islice(_lines(path), corpus.rows + 1)
    if {".json", ".jsonl"}.intersection(suffix.lower() for suffix in path.suffixes):
        return [*_items(map(parse_json, lines))]
    return [line if line.strip() else "" for line in lines]


def _parquet_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a Parquet file; refuse groups of rows that are large when unpacked."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        if any(group.total_byte_size > LONGEST for group in groups):
            raise ValueError(f"a group of rows unpacks to over {LONGEST:,} bytes")
        # One row at a time, because a dictionary repeats a long text in a few bytes.
        for batch in file.iter_batches(1, columns=["text"]):
            yield str(batch["text"][0].as_py())


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text, gzipped or not; refuse a text that is too long."""
    is_zipped = path.suffix.lower() == ".gz"
    with (
        path.open("rb") as raw,
        gzip.GzipFile(fileobj=raw) if is_zipped else nullcontext(raw) as plain,
        io.TextIOWrapper(cast(Any, plain), encoding="utf-8") as file,
    ):
        yield from _within_limit(path, iter(partial(file.readline, LONGEST + 1), ""))


def _within_limit(path: Path, parts: Iterable[str]) -> Iterator[str]:
    """Yield the parts of a text; refuse a text that is too long."""
    length = 0
    for part in parts:
        length += len(part)
        if length > LONGEST:
            raise SparsityReportError(
                f"{path}: the text is longer than {LONGEST:,} characters; score a part of it"
            )
        yield part


def _from_datasets(corpus: Corpus) -> list[str]:
    """Return the rows of a corpus from the Hub or from the cache of ``datasets``."""
    files = {"data_files": {corpus.split: corpus.files}} if corpus.files else {}
    try:
        import datasets

        rows = datasets.load_dataset(*corpus.source, split=corpus.split, **files)
        return [str(row["text"]) for row in islice(rows, corpus.rows + 1)]
    except Exception as error:  # the libraries below raise many types
        why = "the library datasets is not installed" if isinstance(error, ImportError) else error
        raise SparsityReportError(
            f"cannot fetch {corpus.title}: {printable(str(why), 200)}; download {corpus.bring} and "
            "give its path as text= or --text"
        ) from error


def fingerprint(text: str | torch.Tensor) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a text or of token ids.

    Examples
    --------
    >>> fingerprint("a"), fingerprint(torch.tensor([97]))
    ('ca978112ca1bbdca', 'd806031683ebde47')
    """
    if isinstance(text, torch.Tensor):
        data = text.to(torch.int64).cpu().numpy().tobytes()
    else:
        data = text.encode()
    return hashlib.sha256(data).hexdigest()[:16]
