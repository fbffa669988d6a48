"""Tokens by expert from the imatrix files of llama.cpp."""

import re
from pathlib import Path

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.weights.sources.gguf_files import read_header
from sparsity_report.words.sentences import say

_COUNTS = re.compile(r"blk\.(\d{1,6})\.ffn_\w+_exps\.weight\.counts")


def expert_tokens(path: Path) -> tuple[dict[int, list[float]], str]:
    """Return the tokens that routers sent to each expert, by block, and a name of the file.

    Raises
    ------
    SparsityReportError
        The file is damaged, no imatrix, or has no counts by expert, like all in the older format.
    """
    known: dict[int, list[float]] = {}
    with path.open("rb") as file:
        is_old = file.read(4) != b"GGUF"
    metadata, entries = ({}, {}) if is_old else read_header(path)
    for name, entry in entries.items():
        if match := _COUNTS.fullmatch(name):
            counts = [float(number) for number in entry.read().ravel()]
            if known.setdefault(int(match[1]), counts) != counts or min(counts, default=-1) < 0:
                raise SparsityReportError(
                    f"{path}: {name} holds negative numbers of tokens, or others than another "
                    "matrix of the block; write the imatrix again"
                )
    if not known or metadata.get("general.type") != "imatrix":
        raise SparsityReportError(
            f"{path}: holds no tokens by expert, as no older file does; write an imatrix of the "
            "mixture with llama-imatrix --output-format gguf"
        )
    texts, chunks = (metadata.get(f"imatrix.{key}") for key in ("datasets", "chunk_count"))
    names = [printable(str(name), 80) for name in texts] if isinstance(texts, list) else []
    key = "name.imatrix" if names and isinstance(chunks, int) else "name.imatrix_of_unknown"
    return known, say(key, file=path.name, texts=names, chunks=chunks)
