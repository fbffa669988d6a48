"""Cells of a heat map, Transformer block × projection, with short names of projections."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.untrusted.display_text import distinct_names

OUTSIDE = "outside"
# Columns of a heat map up to which each is one Transformer block.
_BLOCKS = 120
# Rows of a heat map up to which each is one projection.
_PROJECTIONS = 40


class Cell(NamedTuple):
    """A cell of a heat map.

    Attributes
    ----------
    block : str
        Number of a Transformer block, ``"14–27"`` of several, or ``"outside"`` blocks.
    projection : str
    """

    block: str
    projection: str


class Grid:
    """Layers sorted into the cells of a heat map.

    Parameters
    ----------
    layers : pandas.DataFrame
        Rows of one variant, as of ``study.layers``.

    Attributes
    ----------
    cells : tuple of Cell
        In model order.
    codes : numpy.ndarray
        Position in ``cells`` of the cell of each row of `layers`.
    """

    def __init__(self, layers: pd.DataFrame) -> None:
        blocks = layers["block"].astype("Int64")
        numbers = sorted(blocks.dropna().unique())
        merged = max(1, -(-len(numbers) // _BLOCKS))
        labels = block_labels(numbers, merged)
        placed = [
            Cell(OUTSIDE if pd.isna(block) else labels[int(block)], projection)
            for block, projection in zip(blocks, _projections(layers), strict=True)
        ]
        order = {cell: place for place, cell in enumerate(dict.fromkeys(placed))}
        self.cells: tuple[Cell, ...] = tuple(order)
        self.codes: npt.NDArray[np.intp] = np.array([order[cell] for cell in placed], dtype=np.intp)

    @property
    def blocks(self) -> list[str]:
        """Labels of blocks in order, ``"outside"`` first."""
        return sorted(dict.fromkeys(cell.block for cell in self.cells), key=_block_order)

    @property
    def projections(self) -> list[str]:
        """Names of projections in model order."""
        return list(dict.fromkeys(cell.projection for cell in self.cells))


def _block_order(label: str) -> int:
    return -1 if label == OUTSIDE else int(label.partition("–")[0])


def block_labels(numbers: Sequence[int], merged: int) -> dict[int, str]:
    """Return labels of blocks by number; blocks in one cell have the first and last number."""
    labels: dict[int, str] = {}
    for _, together in groupby(map(int, numbers), lambda number: number // merged):
        part = list(together)
        labels |= dict.fromkeys(part, str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}")
    return labels


def _projections(layers: pd.DataFrame) -> list[str]:
    """Return the shortest distinct name of each row's projection; the whole name outside blocks.

    If there are more than 40, such as the experts of a mixture, names without numbers replace them,
    then names of groups.
    """
    in_block = layers["block"].notna().to_numpy()
    names = np.full(len(layers), "", dtype=object)
    for numbered, path_of in ((True, _path), (False, _whole_path)):
        rows = in_block == numbered
        part = layers[rows]
        paths = [path_of(name) for name in part["module_name"]]
        short = _short_names(paths) if numbered else [".".join(words) for _, *words in paths]
        if len(set(short)) > _PROJECTIONS:
            short = _short_names([tuple(w for w in path if not w.isdigit()) for path in paths])
        if len(set(short)) > _PROJECTIONS:
            short = [str(group).removesuffix("_linear") for group in part["group"]]
        names[rows] = short
    return distinct_names(list(names), 80)


def _path(name: str) -> tuple[str, ...]:
    """Return a module's stack of blocks and the words after the block's number."""
    words = name.split(".")
    at = next((place for place, word in enumerate(words) if word.isdigit()), 0)
    inner = words[at + 1 :] or ["linear"]
    if inner[-1] in {"dense", "linear"} and len(inner) > 1:
        inner = inner[:-1]
    return (".".join(words[:at]), *inner)


def _whole_path(name: str) -> tuple[str, ...]:
    return ("", *(name or "linear").split("."))


def _short_names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the shortest unique tail of each path, after its stack if there are several."""
    distinct = list(dict.fromkeys(paths))
    stacks = list(dict.fromkeys(stack for stack, *_ in distinct))
    words = [stack.split(".") for stack in stacks]
    # The first word distinguishes encoder.block and decoder.block; otherwise, the full name does.
    heads = [first for first, *_ in words]
    if len(set(heads)) < len(heads):
        heads = stacks
    head = dict(zip(stacks, heads, strict=True)) if len(stacks) > 1 else {}
    tails = Counter((path[0], *path[-k:]) for path in distinct for k in range(1, len(path)))
    names = {}
    for path in distinct:
        unique = (k for k in range(1, len(path)) if tails[(path[0], *path[-k:])] == 1)
        k = next(unique, len(path) - 1)
        names[path] = ".".join(word for word in (head.get(path[0], ""), *path[-k:]) if word)
    return [names[path] for path in paths]
