"""Old public names and arguments, which warn for one release before they are removed."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

#: Old public names, and the names that replace them.
RENAMED = {"Comparison": "Study", "measure_latency": "latency"}
#: Release that removes the old names.
REMOVED_IN = "0.3.0"

P = ParamSpec("P")
R = TypeVar("R")


def removal(old: str, new: str) -> str:
    """Return the text of a warning about an old name.

    Examples
    --------
    >>> removal("sr.measure_latency", "sr.latency")
    'sr.measure_latency will be removed in sparsity-report 0.3.0; use sr.latency'
    """
    return f"{old} will be removed in sparsity-report {REMOVED_IN}; use {new}"


def warn_old(old: str, new: str, depth: int = 2) -> None:
    """Warn at the line of the caller's caller, or of one `depth` calls above this function."""
    warnings.warn(removal(old, new), DeprecationWarning, stacklevel=depth + 1)


def old_arguments(
    swapped: Callable[[Any, Any], bool] | None = None, **renamed: str
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that accepts old names of keywords and the old order of two arguments.

    Parameters
    ----------
    swapped : callable, optional
        Returns True if the first two arguments are in the old order, the second one first.
    **renamed : str
        New names by old ones.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__name__
        first, second = list(inspect.signature(function).parameters)[:2]

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            given, options = list(args), dict(kwargs)
            for old in renamed.keys() & options.keys():
                warn_old(f"{old}= of sr.{name}", f"{renamed[old]}=")
                options[renamed[old]] = options.pop(old)
            is_old = len(given) > 1 and swapped and swapped(*given[:2])
            if swapped and given and first in options:
                is_old, given = True, [options.pop(first), *given]
            elif is_old:
                given[:2] = given[1::-1]
            if is_old:
                warn_old(f"sr.{name}({second}, {first})", f"sr.{name}({first}, {second})")
            return function(*given, **options)  # type: ignore[arg-type]

        return call

    return decorate
