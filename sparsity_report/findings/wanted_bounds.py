"""Rules for a checkpoint as values, read from texts or from a YAML file for several models.

.. code-block:: yaml

    models:
      models/pruned:            # a path relative to this file, or a Hub id
        zeros: "50%..60%"       # quotes, because > and a colon have a meaning in YAML
        mask-of: models/base

Rules that contradict each other are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

from sparsity_report.counting.n_m_patterns import Pattern, read_pattern
from sparsity_report.errors import SparsityReportError, explained, first_line, printable
from sparsity_report.sparse.runtime_support import RUNTIMES
from sparsity_report.untrusted.gates import open_file

_SCALES = {"": 1, "%": Fraction(1, 100), **{unit: 1000**i for i, unit in enumerate("KMBT", 1)}}
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
# Most bytes of a file of rules.
_LARGEST = 2**20


@dataclass(frozen=True)
class Bound:
    """A closed interval, and the text it was written as.

    ``==`` holds for values that round to the written one at its precision.
    """

    text: str
    low: Fraction
    high: Fraction

    def __contains__(self, value: Fraction | int) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Rules:
    """Rules for one model; None, empty or False where nothing is asked for.

    Attributes
    ----------
    zeros : Bound or None
        Share of zeros among all prunable weights.
    layers : Bound or None
        Share of zeros of each prunable matrix.
    pattern : Pattern or None
        Pattern of every prunable matrix along its inputs.
    mask_of : str
        Model whose zeros must be zeros here, too.
    params : Bound or None
        Number of parameters.
    no_nan : bool
        Whether NaN and infinite values are violations.
    runtime : str
        Runtime that must not refuse or misread the layout of the weights.
    audit : bool
        Whether notes about deployment are violations.
    """

    zeros: Bound | None = None
    layers: Bound | None = None
    pattern: Pattern | None = None
    mask_of: str = ""
    params: Bound | None = None
    no_nan: bool = False
    runtime: str = ""
    audit: bool = False

    def __post_init__(self) -> None:
        shares = {"zeros": self.zeros, "layers": self.layers}
        if self.pattern:
            least = Fraction(self.pattern.m - self.pattern.n, self.pattern.m)
            shares["pattern"] = Bound(str(self.pattern), least, Fraction(1))
        given = [(name, bound) for name, bound in shares.items() if bound]
        for (one, a), (other, b) in combinations(given, 2):
            if max(a.low, b.low) > min(a.high, b.high):
                raise SparsityReportError(
                    f"{one} {a.text} contradicts {other} {b.text}: no model has both; drop one"
                )

    @property
    def reads_values(self) -> bool:
        """True if a rule needs the values of prunable matrices."""
        needs = self.zeros or self.layers or self.pattern or self.mask_of or self.runtime
        return bool(needs or self.reads_all)

    @property
    def reads_all(self) -> bool:
        """True if all values are read, as without any rule."""
        return self.no_nan or self.audit or self == Rules()


def read_rules(texts: Mapping[str, object], where: str = "") -> Rules:
    """Return rules from texts by name, such as ``{"zeros": ">=50%"}``; None is no rule.

    Parameters
    ----------
    texts : mapping of str to object
        Names of attributes of :class:`Rules`, with ``-`` or ``_`` between words.
    where : str
        Begin of error messages, such as the file and line of the rules.

    Raises
    ------
    SparsityReportError
        A name or value is unknown, or rules contradict each other.

    Examples
    --------
    >>> rules = read_rules({"zeros": "50%..60%", "params": "==6.7B"})
    >>> rules.zeros.low, float(rules.params.high)
    (Fraction(1, 2), 6750000000.0)
    """
    known = [field.name for field in fields(Rules)]
    values: dict[str, object] = {}
    try:
        for key, text in texts.items():
            name = key.replace("-", "_")
            if name not in known:
                raise SparsityReportError(f"unknown rule {key!r}{_near(name, known)}")
            if text is not None and text is not False:
                values[name] = _value(name, str(text).strip())
        return Rules(**values)  # type: ignore[arg-type]
    except SparsityReportError as error:
        raise SparsityReportError(f"{where}{error}") from error


def read_rule_file(path: str | os.PathLike[str]) -> dict[str, Rules]:
    """Return the rules of each model that a file names.

    Raises
    ------
    SparsityReportError
        The file cannot be read, is no such YAML, or names something unknown or twice.
    """
    import yaml

    file = Path(path)

    def explain(error: Exception) -> str:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "strerror", None)
        return (
            f"{file}{line}: {reason or first_line(error)}; give a YAML file with models and rules"
        )

    with explained(explain, OSError, ValueError, yaml.YAMLError, RecursionError):
        with open_file(file) as opened:
            text = opened.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST:,} bytes")
        # Nodes keep scalars as they are written: YAML reads 2:4 as the number 124.
        root = yaml.compose(text.decode(), Loader=yaml.SafeLoader)
    rules: dict[str, Rules] = {}
    for key, models, where in _pairs(root, file, f"{file}: "):
        if key != "models":
            raise SparsityReportError(f"{where}unknown key {key!r}{_near(key, ['models'])}")
        for model, wanted, place in _pairs(models, file, where):
            texts: dict[str, str] = {}
            for name, each, at in _pairs(wanted, file, place):
                texts[name] = _scalar(each, at)
                read_rules({name: texts[name]}, at)  # names its line
            given = read_rules(texts, place)
            parent = given.mask_of and _beside(file, given.mask_of)
            rules[_beside(file, model)] = replace(given, mask_of=parent)
    if not rules:
        raise SparsityReportError(f"{file}: it names no models; list their rules under models:")
    return rules


def _near(name: str, known: list[str]) -> str:
    """Return the end of an error about an unknown name: close matches, or all known ones."""
    close = get_close_matches(name, known, n=3)
    close = [known_name.replace("_", "-") for known_name in close or known]
    return f"; use {' or '.join(map(printable, close))}"


def _value(name: str, text: str) -> object:
    if name in {"zeros", "layers", "params"}:
        return _bound(name, text, "KMBT" if name == "params" else "%")
    if name == "pattern":
        if (pattern := read_pattern(text)) is None:
            raise SparsityReportError(
                f"pattern: {text!r} is no pattern; write at most N nonzeros of M weights, as 2:4"
            )
        return pattern
    if name in {"no_nan", "audit"}:
        if text.lower() not in _FLAGS:
            raise SparsityReportError(
                f"{name.replace('_', '-')}: {text!r} is neither true nor false"
            )
        return _FLAGS[text.lower()]
    if name == "runtime" and text.lower() not in RUNTIMES:
        raise SparsityReportError(f"unknown runtime {text!r}{_near(text.lower(), [*RUNTIMES])}")
    return text.lower() if name == "runtime" else text


def _bound(name: str, text: str, units: str) -> Bound:
    """Return the intersection of intervals such as ``>=40%, <=60%`` or ``40%..60%``."""
    most = Fraction(1 if units == "%" else 10**18)
    number = rf"\d{{1,15}}(?:\.\d{{1,12}})?[{units}]?"
    one = re.compile(rf"(<=|≤|>=|≥|==)\s*({number})|({number})\s*\.\.\s*({number})")
    low, high = Fraction(0), most
    for part in text.split(","):
        match = one.fullmatch(part.strip())
        numbers = [_number(each) for each in match.groups()[1:] if each] if match else []
        if match is None or max(numbers)[0] > most:
            example = "50%, 0.6 or 40%..60%" if units == "%" else "6.5B or 6B..7B"
            raise SparsityReportError(
                f"{name}: {part.strip()!r} is no bound; write <=, >= or == and a number, or a "
                f"range: {example}"
            )
        (value, half), (end, _) = numbers[0], numbers[-1]
        ends = {
            "<": (low, value), "≤": (low, value), ">": (value, high), "≥": (value, high),
            "=": (value - half, value + half), "": (value, end),
        }  # fmt: skip
        below, above = ends[(match[1] or "")[:1]]
        low, high = max(low, below), min(high, above)
    if low > high:
        raise SparsityReportError(f"{name} {text} contradicts itself: no number fits; drop a part")
    return Bound(text, low, high)


def _number(text: str) -> tuple[Fraction, Fraction]:
    """Return a number with its unit, and half of its last written digit."""
    digits = text.rstrip("%KMBT")
    scale = Fraction(_SCALES[text[len(digits) :]])
    return Fraction(digits) * scale, scale / (2 * 10 ** len(digits.partition(".")[2]))


def _pairs(node: Any, file: Path, where: str) -> Iterator[tuple[str, Any, str]]:
    """Yield key, value and place of the entries of a YAML mapping; refuse a key twice."""
    if getattr(node, "id", "") != "mapping":
        raise SparsityReportError(f"{where}expected names and values, as in the guide check-in-ci")
    names: set[str] = set()
    for key, value in node.value:
        place = f"{file}:{key.start_mark.line + 1}: "
        if (name := _scalar(key, place)) in names:
            raise SparsityReportError(f"{place}{name!r} stands twice; keep one")
        names.add(name)
        yield name, value, place


def _scalar(node: Any, where: str) -> str:
    if getattr(node, "id", "") != "scalar":
        raise SparsityReportError(f"{where}expected a single value, as in the guide check-in-ci")
    return str(node.value)


def _beside(file: Path, model: str) -> str:
    """Return the path of a model beside the file, or else its Hub id."""
    path = file.parent / model
    return str(path) if path.exists() else model
