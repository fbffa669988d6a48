"""Limits of the numbers in ``config.json``, by the words of their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import check_integer

# Largest values by words of names, the first match first; other numbers may be sizes.
_KINDS = tuple(
    (re.compile(rf"(^|_)({words})s?(_|\d|$)"), low, high)
    for words, low, high in (
        ("id|idx|index|indice|indexe|theta|base|seed|offset|token|feature_layer",
         -limits.VALUES, limits.VALUES),
        ("expert", 0, limits.EXPERTS),
        ("vocab|vocabulary|codebook_size", 0, limits.VOCABULARY),
        # Many settings use -1 for none or all.
        ("layer|block|depth|stage|loop|step|repeat|level", -1, limits.BLOCKS),
        ("image_size|img_size|resolution|grid", -1, limits.PIXELS),
        ("position|length|len|context|ctx|window|distance|period|chunk|rate|frame|sample",
         -1, limits.POSITIONS),
        (".*", -1, limits.WIDTH),
    )
)  # fmt: skip
# Parameters allowed per tensor in the files, and a constant for buffers, fused experts, computed or
# tied parts, and small models.
_PER_TENSOR, _BESIDES = 16, 1000
Defaults = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def check_sizes(
    settings: Mapping[str, Any], defaults: Defaults, inner: Mapping[str, Any] | None = None
) -> None:
    """Refuse numbers beyond their limits among the settings that a class knows, or all without one.

    Parameters
    ----------
    settings : mapping
        Content of ``config.json``, or a configuration in it.
    defaults : callable
        Returns the defaults of the class of a configuration; None without a class.
    inner : mapping, optional
        Defaults of a configuration that does not name its class.

    Raises
    ------
    ValueError
        A number exceeds its limit.
    """
    known = defaults(settings) or inner
    for name, value in settings.items():
        if known is not None and name not in known:
            continue
        if isinstance(value, dict):
            nested = known[name] if known else None
            is_config = isinstance(nested, dict) and "model_type" in nested
            check_sizes(value, defaults, nested if is_config else None)
        if known is not None and isinstance(known[name], float):
            continue
        low, high = next(kind[1:] for kind in _KINDS if kind[0].search(name.lower()))
        numbers = [*_numbers(value)]
        for number in numbers:
            check_integer(number, name, low, high)
        if isinstance(value, list) and high < limits.VALUES:
            check_integer(len(numbers), f"the length of {name}", 0, limits.BLOCKS)
            check_integer(sum(numbers), f"the sum of {name}", -limits.BLOCKS, 16 * high)


def has_usual_sizes(settings: Mapping[str, Any]) -> bool:
    """Return whether all numbers of a configuration are within their limits."""
    try:
        check_sizes(settings, lambda _: None)
    except ValueError:
        return False
    return True


def parameters_for(tensors: int) -> int:
    """Return the most parameters allowed for a model whose files hold a number of tensors.

    Examples
    --------
    >>> parameters_for(300)
    5800
    """
    return min(_PER_TENSOR * tensors + _BESIDES, limits.PARAMETERS)


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value
