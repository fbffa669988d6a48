"""A bar while something long runs: by itself in a notebook and on a terminal, never into a pipe."""

from __future__ import annotations

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
# Seconds after which something is long.
_LONG = 1.0
# Whether somebody hears of progress already, so that no bar stands in another.
_SHOWN: ContextVar[bool] = ContextVar("_SHOWN", default=False)


def with_bar(what: str, unit: str = "B") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a function whose keyword is ``progress`` a bar where its caller gives nothing."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def shown(*args: P.args, **kwargs: P.kwargs) -> R:
            given: Any = kwargs.pop("progress", None)
            with bar(what, unit, given) as progress:
                kwargs["progress"] = progress
                return function(*args, **kwargs)

        return shown

    return decorate


@contextmanager
def bar(
    what: str, unit: str = "B", given: Progress | None = None, after: float = _LONG
) -> Iterator[Progress]:
    """Yield what is to be called with what is done, what is to do and a name.

    Parameters
    ----------
    what : str
    unit : str
    given : callable, optional
        Is told instead, by whoever shows progress in a way of his own.
    after : float
        Seconds after which the bar is shown.
    """
    if _SHOWN.get():
        yield given or _silent
        return
    before = _SHOWN.set(True)
    try:
        if given or os.environ.get("TQDM_DISABLE"):
            yield given or _silent
            return
        with hooks.progress_bar(what, unit, after) as progress:
            yield progress
    finally:
        _SHOWN.reset(before)


def _silent(done: int, total: int, name: str) -> None:
    pass
