"""How numbers are written in sentences and tables."""

from collections.abc import Sequence


def percent(share: float, digits: int = 1) -> str:
    """Write a share as a percentage.

    Examples
    --------
    >>> percent(0.3), percent(0.00001), percent(0.9999999)
    ('30.0 %', '< 0.1 %', '> 99.9 %')
    """
    smallest = 10.0**-digits
    shown = 100 * share
    if 0 < shown < smallest / 2:
        return f"< {smallest:.{digits}f} %"
    if 100 - smallest / 2 < shown < 100:
        return f"> {100 - smallest:.{digits}f} %"
    return f"{shown:.{digits}f} %"


def scaled(number: float, unit: str) -> str:
    """Write a quantity with a decimal prefix (k = 10³, M = 10⁶, …) and three digits.

    Examples
    --------
    >>> scaled(108_160_356, "B"), scaled(999, "FLOPs")
    ('108 MB', '999 FLOPs')
    """
    prefixes = ("", "k", "M", "G", "T", "P")
    step = 0
    while abs(number) >= 999.5 and step < len(prefixes) - 1:
        number, step = number / 1000, step + 1
    digits = 0 if step == 0 or abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2
    return f"{number:.{digits}f} {prefixes[step]}{unit}"


def join(words: Sequence[str]) -> str:
    """Write an enumeration.

    Examples
    --------
    >>> join(["a"]), join(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def some(names: Sequence[str], limit: int = 3) -> str:
    """Write the first few of many names.

    Examples
    --------
    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = list(names[:limit])
    return join([*shown, f"{len(names) - limit} more"] if len(names) > limit else shown)
