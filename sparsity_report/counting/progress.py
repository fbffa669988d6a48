"""Progress bars for long work, in a notebook and on a terminal, never in a pipe."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sparsity_report.errors import legible, printable

# Called with the number done, the number to do and a name.
Progress = Callable[[int, int, str], None]

P = ParamSpec("P")
R = TypeVar("R")
# A bar without amounts, for work that has no unit.
_TIMES = "{l_bar}{bar}| {elapsed}, {remaining} left{postfix}"
# Seconds before a bar appears.
_LONG = 1.0
# True inside a bar, so that bars are not nested.
_SHOWN: ContextVar[bool] = ContextVar("_SHOWN", default=False)


def with_bar(title: str, unit: str = "B") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that shows a bar unless the caller passes ``progress``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            given: Any = kwargs.pop("progress", None)
            with bar(title, unit, given) as progress:
                kwargs["progress"] = progress
                return function(*args, **kwargs)

        return wrapper

    return decorate


@contextmanager
def bar(title: str, unit: str = "B", given: Progress | None = None) -> Iterator[Progress]:
    """Yield a function to call with the amount done, the total and a name.

    Parameters
    ----------
    title : str
    unit : str
    given : callable, optional
        Called instead of showing a bar.
    """
    is_drawn = not (given or _SHOWN.get() or os.environ.get("TQDM_DISABLE"))
    before = _SHOWN.set(True)
    try:
        with _drawn(title, unit) if is_drawn else nullcontext(given or _silent) as progress:
            yield progress
    finally:
        _SHOWN.reset(before)


def _silent(done: int, total: int, name: str) -> None:
    pass


@contextmanager
def _drawn(label: str, unit: str) -> Iterator[Progress]:
    """Draw a bar that appears after `_LONG` seconds and vanishes at the end."""
    from tqdm.auto import tqdm

    with tqdm(
        desc=label, unit=unit, unit_scale=unit == "B", unit_divisor=1000,
        disable=None, leave=False, delay=_LONG, bar_format=None if unit else _TIMES,
    ) as bar:  # fmt: skip
        cell = None if getattr(bar, "displayed", True) else _Cell(bar)

        def show(done: int, total: int, name: str) -> None:
            if not done:
                bar.unpause()  # the work begins now
            bar.total = total
            bar.set_postfix_str(printable(legible(name[-40:])[-40:]), refresh=False)
            bar.update(done - bar.n)

        yield show
    if cell is not None:
        cell.clear()


class _Cell:
    """An output of a notebook cell with a bar, emptied at the end.

    A closed bar alone would leave a dead widget in the notebook's file.
    """

    def __init__(self, bar: Any) -> None:
        from IPython.display import DisplayHandle

        untyped: Any = DisplayHandle
        self._handle, self._bar, self._draw = untyped(), bar, bar.display
        # An output that the bar displays cannot be emptied.
        self._is_drawn, bar.displayed, bar.display = False, True, self._display

    def _display(self, *message: Any, check_delay: bool = True, **options: Any) -> None:
        self._draw(*message, check_delay=check_delay, **options)
        if check_delay and not self._is_drawn:
            self._handle.display(self._bar.container)
            self._is_drawn = True

    def clear(self) -> None:
        """Empty the output."""
        if self._is_drawn:
            self._handle.update({}, raw=True)
