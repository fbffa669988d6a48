"""Progress bars in notebook cells and terminals; none in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparsity_report.errors import legible, printable

if TYPE_CHECKING:
    from sparsity_report.counting.progress import Progress


@contextmanager
def drawn(label: str, unit: str, after: float) -> Iterator[Progress]:
    """Draw a bar that appears after so many seconds and vanishes at the end."""
    from tqdm.auto import tqdm

    with tqdm(
        desc=label, unit=unit, unit_scale=unit == "B", unit_divisor=1000,
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
    """An output of a notebook cell with a bar, emptied at the end.

    A closed bar alone would leave a dead widget in the notebook's file.
    """

    def __init__(self, bar: Any) -> None:
        from IPython.display import DisplayHandle

        untyped: Any = DisplayHandle
        self._handle, self._bar, self._draw = untyped(), bar, bar.display
        # An output that the bar displays cannot be emptied.
        self._shown, bar.displayed, bar.display = False, True, self._display

    def _display(self, *message: Any, check_delay: bool = True, **options: Any) -> None:
        self._draw(*message, check_delay=check_delay, **options)
        if check_delay and not self._shown:
            self._handle.display(self._bar.container)
            self._shown = True

    def clear(self) -> None:
        """Empty the output."""
        if self._shown:
            self._handle.update({}, raw=True)
