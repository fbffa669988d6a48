"""Rules for the models of a repository, from a YAML file.

.. code-block:: yaml

    models:
      models/pruned:            # a path relative to this file, or a Hub id
        zeros: "50%..60%"       # quotes, because > and a colon have a meaning in YAML
        mask-of: models/base

The rules are those of :class:`sparsity_report.findings.rules.wanted_bounds.Rules`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError, explained, first_line
from sparsity_report.findings.rules.wanted_bounds import Rules, near, read_rules
from sparsity_report.untrusted.gates import open_file

# Most bytes of a file of rules.
_LARGEST = 2**20


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
            raise SparsityReportError(f"{where}unknown key {key!r}{near(key, ['models'])}")
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
