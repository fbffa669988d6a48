"""A bar of progress: a notebook's own in a cell, or a line on a terminal; nothing in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sparsity_report.errors import legible, printable

if TYPE_CHECKING:
    from sparsity_report.counting.counts import Progress


@contextmanager
def drawn(what: str, unit: str, after: float) -> Iterator[Progress]:
    """Draw a bar, after so many seconds, until all is done."""
    from tqdm.auto import tqdm

    with tqdm(
        desc=what, unit=unit, unit_scale=unit == "B", unit_divisor=1000,
        disable=None, leave=False, delay=after,
    ) as bar:  # fmt: skip

        def show(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.set_postfix_str(printable(legible(name[-40:])[-40:]), refresh=False)
            bar.update(done - bar.n)

        yield show
