"""What a kit for a thesis is made of, whatever it is about, and the names of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import altair as alt

from sparsity_report.report.tables.latex import Tex, command_names, quantity
from sparsity_report.report.tables.table_model import COUNT, Kind, Table, kind_of, scaled

# Units of what is written short.
UNITS = {
    **dict.fromkeys(("stored_bytes", "file_bytes", "kv_cache_bytes_per_token"), "B"),
    **dict.fromkeys(("flops_per_token", "useful_flops_per_token"), "FLOPs"),
}


class Drawing(NamedTuple):
    """A figure of a kit.

    Attributes
    ----------
    file, command : str
        What its files are called, and what names its caption.
    draw : callable
        Takes ``width`` in points; None where there is nothing to draw.
    """

    file: str
    command: str
    draw: Callable[..., alt.LayerChart | None]


class Kit(NamedTuple):
    """Figures, tables and numbers of a kit, and what else its templates show.

    Attributes
    ----------
    drawings : list of Drawing
    tables : mapping
        By the names of their files.
    numbers : list of (str, Tex)
        Commands, not yet told apart, and what they stand for.
    shown : mapping
        Of templates.
    """

    drawings: list[Drawing]
    tables: Mapping[str, Table]
    numbers: list[tuple[str, Tex]]
    shown: Mapping[str, Any]


def commands_of(numbers: Iterable[tuple[str, Tex]]) -> list[tuple[Tex, Tex]]:
    """Return numbers under names of LaTeX commands, all different."""
    wanted = list(numbers)
    names = command_names((command for command, _ in wanted), longest=None)
    return [(Tex(command), value) for command, (_, value) in zip(names, wanted, strict=True)]


def number(
    command: str, value: Any, key: str, kind: Kind | None = None
) -> Iterator[tuple[str, Tex]]:
    """Yield a number under a command, and a count once more in short."""
    kind = kind or kind_of(key)
    yield command, quantity(value, kind)
    if kind is COUNT:
        yield f"{command}Short", quantity(value, scaled(UNITS.get(key, "")))


def camel(column: str) -> str:
    """Return the name of a column as a part of a command.

    Examples
    --------
    >>> camel("stored_bytes")
    'StoredBytes'
    """
    return "".join(word.capitalize() for word in column.split("_"))
