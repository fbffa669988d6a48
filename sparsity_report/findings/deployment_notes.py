"""Properties of a checkpoint that break deployment though no rule asks for them.

Announced sparsity that the weights lack, NaN and infinite values, dead parts, blocks of different
shapes, and tensors that belong to no model.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from sparsity_report.counting.matrix_counts import dead_parts, head_sums
from sparsity_report.counting.n_m_patterns import Pattern, read_pattern
from sparsity_report.findings.model_counts import CountedModel, model_experts, zero_experts
from sparsity_report.sparse.runtime_support import LOOKED_AT, REFUSED, RUNTIMES, UNKNOWN
from sparsity_report.sparse.shares import ratio
from sparsity_report.weights.packed.quantization_config import read_scheme
from sparsity_report.weights.sources.checkpoint import CheckpointWeights
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say

_Key = TypeVar("_Key")
#: Kinds of parts without a nonzero.
ALL_ZERO = ("layers", "heads", "rows", "columns")
# Number of a block or expert in a name.
_NUMBER = re.compile(r"(^|\.)\d{1,9}(?=\.)")
# Distance of shares of zeros that is no rounding.
_APART = 0.01


def deployment_notes(model: CountedModel) -> Iterator[str]:
    """Yield notes about a model: from its headers, and from values where they were counted."""
    if reason := model.weights.undecided:
        yield say("note.undecided", reason=reason)
    yield from missing_sparsity(model)
    yield from _not_finite(model)
    if unsettled := [each.name for each in model.matrices if each.turned]:
        yield say("check.unsettled", modules=unsettled)
    yield from _dead(model)
    yield from _varying(model.weights)
    yield from _leftovers(model.weights)
    yield from _beyond(model.weights)


def missing_sparsity(model: CountedModel) -> Iterator[str]:
    """Yield the patterns and shares of zeros that config.json announces and the weights lack."""
    settings, pattern = _sparsity_config(model.weights), announced_pattern(model.weights)
    announced, share = settings.get("global_sparsity"), ratio(model.zeros, model.total)
    if isinstance(announced, float) and share is not None and share < announced - _APART:
        yield say("check.announced_share", announced=announced, share=share)
    ignored = settings.get("ignore")
    names = {*map(str, ignored)} if isinstance(ignored, list) else set()
    inside = [each for each in model.settled if each.name not in names]
    broken = {each.name: place for each in inside if pattern and (place := each.broken(pattern))}
    # Exceptions by regular expression are not evaluated.
    if broken and not any(name.startswith("re:") for name in names):
        name, place = next(iter(broken.items()))
        counts = {"broken": len(broken), "matrices": len(inside)}
        first = {"pattern": str(pattern), "name": name, "place": place}
        yield say("check.announced_pattern", **first, **counts)


def announced_pattern(weights: Weights) -> Pattern | None:
    """Return the N:M pattern that a configuration announces."""
    structure = _sparsity_config(weights).get("sparsity_structure")
    return read_pattern(structure) if isinstance(structure, str) else None


def _sparsity_config(weights: Weights) -> Mapping[str, Any]:
    sources = [weights.configuration()]
    if isinstance(weights, CheckpointWeights):
        sources.append(dict(read_scheme(weights.directory, weights.settings).settings))
    configs = (each.get("sparsity_config") for each in sources)
    return next((each for each in configs if isinstance(each, dict)), {})


def _not_finite(model: CountedModel) -> Iterator[str]:
    for key, kind in (("check.nan", "nan"), ("check.infinite", "infinite")):
        numbers = {t.name: number for t in model.tensors if (number := getattr(t.counts, kind))}
        if numbers:
            yield say(key, count=sum(numbers.values()), modules=[*numbers])


def _dead(model: CountedModel) -> Iterator[str]:
    """Yield layers, experts, heads, rows and columns without a nonzero, as the audit of studies."""
    dead: dict[str, dict[str, int]] = {kind: {} for kind in ALL_ZERO}
    dead_experts: dict[tuple[str, int], None] = {}
    # Named by their module, in all of whose matrices they are zero.
    in_modules = {*zero_experts(model_experts(model.weights, model))}
    for each in model.settled:
        nonzeros = {"rows": each.counts.rows, "columns": each.counts.columns}
        experts = nonzeros["rows"].any(axis=1)
        if not experts.any():
            dead["layers"][each.name] = 1
        else:
            for number in np.flatnonzero(~experts).tolist():
                place = (each.module.name, number)
                dead_experts[place if place in in_modules else (each.name, number)] = None
        lines = nonzeros["columns" if each.parameter.head_axis else "rows"]
        if each.parameter.heads:
            nonzeros["heads"] = head_sums(lines, each.parameter.heads)
        for kind, sums in nonzeros.items():
            if number := dead_parts(sums):
                dead[kind][each.name] = number
    for kind, counts in dead.items():
        yield from zero_parts(kind, {model.weights.name: counts})
    if dead_experts:
        names = [say("check.expert", module=name, expert=n) for name, n in dead_experts]
        yield say("check.zero_experts", variants=[model.weights.name], modules=names)


def group_names(pairs: Iterable[tuple[_Key, str]]) -> dict[_Key, list[str]]:
    """Return names by the key they share, in order of first appearance.

    Examples
    --------
    >>> group_names([(0.3, "Masked30"), (0.5, "Masked50"), (0.3, "CSR30")])
    {0.3: ['Masked30', 'CSR30'], 0.5: ['Masked50']}
    """
    groups: dict[_Key, list[str]] = {}
    for key, name in pairs:
        groups.setdefault(key, []).append(name)
    return groups


def zero_parts(kind: str, counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Name the modules where variants agree, else give the count of each variant."""
    groups = group_names((tuple(parts.items()), name) for name, parts in counts.items() if parts)
    if len(groups) > 1:
        each = [_count(kind, names, dict(parts)) for parts, names in groups.items()]
        yield say(f"audit.zero_by_variant.{kind}", counts=each)
        return
    for parts, names in groups.items():
        yield say(f"audit.zero.{kind}", variants=names, modules=_modules(kind, dict(parts)))


def _count(kind: str, names: list[str], counts: Mapping[str, int]) -> str:
    key = "audit.zero_count" if kind == "layers" else "audit.zero_count_in_matrices"
    return say(key, count=sum(counts.values()), modules=len(counts), variants=names)


def _modules(kind: str, counts: Mapping[str, int]) -> list[str]:
    """Return modules with the number of their all-zero parts, largest number first."""
    ranked = sorted(counts, key=lambda name: -counts[name])
    if kind == "layers":
        return [*ranked]
    return [say("audit.module_count", module=name, count=counts[name]) for name in ranked]


def varying(weights: Weights) -> list[str]:
    """Return the matrices that differ in shape between blocks, with ``*`` for their numbers.

    Blocks are numbered modules as many as a number of the configuration says.
    """
    config = weights.configuration()
    holders = [each for each in (config, *config.values()) if isinstance(each, Mapping)]
    announced = {value for each in holders for value in each.values() if type(value) is int}
    shapes: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    matrices = {name: shape for name, shape in _shapes(weights).items() if len(shape) > 1}
    for prefix, numbers in _blocks(matrices).items():
        if len(numbers) in announced and len(numbers) == max(numbers) + 1:
            for name in chain.from_iterable(numbers.values()):
                rest = _NUMBER.sub(r"\1*", name[len(prefix) :])
                shapes[prefix + rest].add(matrices[name])
    return [name for name, sizes in shapes.items() if len(sizes) > 1]


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors in files, or of the parameters in memory."""
    if isinstance(weights, CheckpointWeights):
        return {key: entry.shape for key, entry in weights.unpacked.items()}
    return {parameter.name: parameter.shape for parameter in weights.stored}


def _blocks(names: Iterable[str]) -> dict[str, dict[int, list[str]]]:
    """Return names by the text before their first number, and by that number."""
    blocks: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        if match := _NUMBER.search(name):
            blocks[name[: match.end(1)]][int(match[0].lstrip("."))].append(name)
    return blocks


def _varying(weights: Weights) -> Iterator[str]:
    """Yield a note on blocks of different shapes, and the runtimes known to load some such."""
    if names := varying(weights):
        cells = {runtime.name: runtime.cells["uneven"].verdict for runtime in RUNTIMES.values()}
        loading = [name for name, verdict in cells.items() if verdict not in {REFUSED, UNKNOWN}]
        listed = "per_layer_config" in weights.configuration()
        key = "check.varying_listed" if listed else "check.varying"
        yield say(key, modules=names, runtimes=loading, date=LOOKED_AT)


def _leftovers(weights: Weights) -> Iterator[str]:
    """Yield tensors beyond the last block, and those named after another one of their shape."""
    shapes, beside = _shapes(weights), {}
    for name, shape in shapes.items():
        cuts = [match.start() for match in re.finditer(r"[._]", name)]
        shorter = chain((name[:cut] for cut in cuts), (name[cut + 1 :] for cut in cuts))
        if len(shape) > 1 and (twin := next((n for n in shorter if shapes.get(n) == shape), "")):
            beside[name] = twin
    if beside:
        name, twin = next(iter(beside.items()))
        yield say("check.leftovers", count=len(beside), name=name, twin=twin)


def _beyond(weights: Weights) -> Iterator[str]:
    """Yield tensors of blocks after the last one of the configuration."""
    blocks = weights.configuration().get("num_hidden_layers")
    for numbers in _blocks(_shapes(weights)).values():
        if type(blocks) is int and 0 < blocks < len(numbers) and {*range(blocks)} <= numbers.keys():
            beyond = [number for number in numbers if number >= blocks]
            first = numbers[min(beyond)][0]
            yield say("check.beyond", count=len(beyond), blocks=blocks, first=first)
