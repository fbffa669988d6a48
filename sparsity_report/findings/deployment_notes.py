"""Properties of a checkpoint that break deployment though no rule asks for them.

Announced sparsity that the weights lack, numbers that kernels mistreat, dead parts, blocks of
different shapes, and tensors that belong to no model.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from sparsity_report.counting.matrix_counts import dead_parts, head_sums
from sparsity_report.counting.n_m_patterns import Pattern, read_pattern
from sparsity_report.findings.counted_tensors import CountedModel
from sparsity_report.findings.variant_names import ALL_ZERO, zero_parts
from sparsity_report.sparse.runtime_support import LOOKED_AT, REFUSED, RUNTIMES, UNKNOWN
from sparsity_report.sparse.shares import ratio
from sparsity_report.weights.anatomy.groups import OUTPUT_WORDS
from sparsity_report.weights.anatomy.names_only import first_count, text_settings
from sparsity_report.weights.packed.quantization_config import read_scheme
from sparsity_report.weights.sources.checkpoint import CheckpointWeights
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say

# Dtypes whose denormals processors may flush to zero; those of narrower dtypes are usual weights.
_FLUSHED = {"float64", "float32", "bfloat16"}
# Counts that are noted, by the key of the note.
_SPECIAL = {
    "check.nan": "nan",
    "check.infinite": "infinite",
    "check.denormal": "denormal",
}
# Number of a block or expert in a name.
_NUMBER = re.compile(r"(^|\.)\d{1,9}(?=\.)")
# Distance of shares of zeros that is no rounding.
_APART = 0.01


def deployment_notes(model: CountedModel) -> Iterator[str]:
    """Yield notes about a model: from its headers, and from values where they were counted."""
    yield from missing_sparsity(model)
    yield from _special_numbers(model)
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


def _special_numbers(model: CountedModel) -> Iterator[str]:
    """Yield numbers that are not finite, and denormal ones."""
    for key, kind in _SPECIAL.items():
        read = (t for t in model.tensors if kind != "denormal" or t.parameter.format in _FLUSHED)
        if numbers := {each.name: n for each in read if (n := getattr(each.counts, kind))}:
            yield say(key, count=sum(numbers.values()), modules=[*numbers])


def _dead(model: CountedModel) -> Iterator[str]:
    """Yield layers, experts, heads, rows and columns without a nonzero, as the audit of studies."""
    dead: dict[str, dict[str, int]] = {kind: {} for kind in ALL_ZERO}
    dead_experts: list[str] = []
    head_dim, sizes = _heads(model.weights)
    for each in model.settled:
        nonzeros = {"rows": each.counts.rows, "columns": each.counts.columns}
        experts = nonzeros["rows"].any(axis=1)
        if not experts.any():
            dead["layers"][each.name] = 1
        else:
            numbers = np.flatnonzero(~experts).tolist()
            dead_experts += [say("check.expert", module=each.name, expert=n) for n in numbers]
        is_output = each.name.rpartition(".")[2] in OUTPUT_WORDS
        lines = nonzeros["columns" if is_output else "rows"]
        if each.module.group == "attention_linear" and lines.size in sizes:
            nonzeros["heads"] = head_sums(lines, head_dim)
        for kind, sums in nonzeros.items():
            if number := dead_parts(sums):
                dead[kind][each.name] = number
    for kind, counts in dead.items():
        yield from zero_parts(kind, {model.weights.name: counts})
    if dead_experts:
        yield say("check.zero_experts", variants=[model.weights.name], modules=dead_experts)


def _heads(weights: Weights) -> tuple[int, set[int]]:
    """Return the width of an attention head, and the sizes that the heads of projections have."""
    settings = text_settings(weights.configuration())
    heads = first_count(settings, "num_attention_heads", "n_head", "num_heads", "n_heads") or 0
    pairs = first_count(settings, "num_key_value_heads") or heads
    width = first_count(settings, "hidden_size", "n_embd", "d_model", "dim") or 0
    head_dim = first_count(settings, "head_dim") or (width // heads if heads else 0)
    return head_dim, {n * head_dim for n in (heads, pairs, heads + 2 * pairs) if n * head_dim}


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
