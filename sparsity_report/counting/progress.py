"""Progress bars for long work, in a notebook and on a terminal, never in a pipe."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sparsity_report.hooks import hooks

# Called with the number done, the number to do and a name.
Progress = Callable[[int, int, str], None]

P = ParamSpec("P")
R = TypeVar("R")
# Seconds before a bar appears.
_LONG = 1.0
# True inside a bar, so that bars are not nested.
_SHOWN: ContextVar[bool] = ContextVar("_SHOWN", default=False)


def with_bar(title: str, unit: str = "B") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that shows a bar unless the caller passes ``progress``."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def shown(*args: P.args, **kwargs: P.kwargs) -> R:
            given: Any = kwargs.pop("progress", None)
            with bar(title, unit, given) as progress:
                kwargs["progress"] = progress
                return function(*args, **kwargs)

        return shown

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
    if _SHOWN.get():
        yield given or _silent
        return
    before = _SHOWN.set(True)
    try:
        if given or os.environ.get("TQDM_DISABLE"):
            yield given or _silent
            return
        with hooks.progress_bar(title, unit, _LONG) as progress:
            yield progress
    finally:
        _SHOWN.reset(before)


def _silent(done: int, total: int, name: str) -> None:
    pass
