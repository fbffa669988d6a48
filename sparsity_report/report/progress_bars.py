"""A bar of progress: a notebook's own in a cell, or a line on a terminal; nothing in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparsity_report.errors import legible, printable

if TYPE_CHECKING:
    from sparsity_report.counting.progress import Progress


@contextmanager
def drawn(what: str, unit: str, after: float) -> Iterator[Progress]:
    """Draw a bar, after so many seconds, until all is done."""
    from tqdm.auto import tqdm

    with tqdm(
        desc=what, unit=unit, unit_scale=unit == "B", unit_divisor=1000,
        disable=None, leave=False, delay=after,
    ) as bar:  # fmt: skip
        shown = None if getattr(bar, "displayed", True) else _Cell(bar)

        def show(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.set_postfix_str(printable(legible(name[-40:])[-40:]), refresh=False)
            bar.update(done - bar.n)

        yield show
    if shown is not None:
        shown.clear()


class _Cell:
    """What shows a notebook's bar, and is empty once all is done.

    Closed alone, the bar would stay in the notebook's file as a widget that there is no more.
    """

    def __init__(self, bar: Any) -> None:
        from IPython.display import DisplayHandle

        untyped: Any = DisplayHandle
        self._handle, self._bar, self._draw = untyped(), bar, bar.display
        # Displayed by the bar itself it could not be emptied.
        self._shown, bar.displayed, bar.display = False, True, self._display

    def _display(self, *message: Any, check_delay: bool = True, **how: Any) -> None:
        self._draw(*message, check_delay=check_delay, **how)
        if check_delay and not self._shown:
            self._handle.display(self._bar.container)
            self._shown = True

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._shown:
            self._handle.update({}, raw=True)
