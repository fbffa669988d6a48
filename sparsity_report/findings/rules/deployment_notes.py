"""Properties of a checkpoint that break deployment though no rule asks for them.

Announced sparsity that the weights lack, all-zero groups, numbers that kernels mistreat, dead
parts, blocks of different shapes, and tensors that belong to no model.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from sparsity_report.counting.bit_statistics import GROUPS, BitStatistics
from sparsity_report.counting.n_m_patterns import Pattern, read_pattern
from sparsity_report.errors import SparsityReportError
from sparsity_report.findings.rules.prunable_tensors import Tensor
from sparsity_report.phrases import Phrase, phrase
from sparsity_report.sparse.runtime_support import LOOKED_AT, REFUSED, RUNTIMES, UNKNOWN
from sparsity_report.weights.anatomy.groups import OUTPUT_WORDS
from sparsity_report.weights.outline import Outline

# Dtypes whose denormals processors may flush to zero; those of narrower dtypes are usual weights.
_FLUSHED = {"float64", "float32", "bfloat16"}
# Number of a block or expert in a name.
_NUMBER = re.compile(r"(^|\.)\d{1,9}(?=\.)")
# Distance of shares of zeros that is no rounding.
_APART = 0.01


@dataclass(frozen=True)
class Counted:
    """A tensor and its counts; in both directions where that of its matrix is not known."""

    tensor: Tensor
    counts: BitStatistics
    turned: tuple[BitStatistics, ...] = ()

    def broken(self, pattern: Pattern) -> Phrase | None:
        """Return the place where the matrix breaks a pattern along its inputs; None if nowhere.

        Raises
        ------
        SparsityReportError
            The direction of the matrix is unknown and decides.
        """
        matrix = self.tensor.matrix
        assert matrix is not None
        if not self.turned:
            return _broken(self.counts, pattern, matrix.inputs)
        pairs = zip(self.turned, (matrix.inputs, matrix.outputs), strict=True)
        one, other = (_broken(counts, pattern, inputs) for counts, inputs in pairs)
        if bool(one) != bool(other):
            raise SparsityReportError(
                f"{self.tensor.name} has {pattern} in one direction, and no bias of another length "
                "tells which is that of its inputs; check it with the model's other tensors"
            )
        return one


def _broken(counts: BitStatistics, pattern: Pattern, inputs: int) -> Phrase | None:
    if pattern not in counts.complying:
        return phrase("check.no_groups", inputs=inputs, m=pattern.m)
    if (place := counts.violations.get(pattern)) is None:
        return None
    number = counts.total // pattern.m
    broken = number - counts.complying[pattern]
    return phrase("check.broken", broken=broken, groups=number, place=_place(place, pattern.m))


def _place(place: tuple[int, int, int], width: int) -> Phrase:
    expert, row, column = place
    where = {"row": row, "first": column, "last": column + width - 1}
    if expert:
        return phrase("check.place_in_expert", expert=expert, **where)
    return phrase("check.place", **where)


def deployment_notes(outline: Outline, counted: Sequence[Counted]) -> Iterator[Phrase]:
    """Yield notes about a model: from its headers, and from values where they were counted.

    Rows, columns and places count from 0.
    """
    matrices = [each for each in counted if each.tensor.matrix]
    yield from _announced(outline, matrices)
    yield from _special_numbers(counted)
    if unsettled := [each.tensor.name for each in matrices if not each.tensor.is_settled]:
        yield phrase("check.unsettled", modules=unsettled)
    yield from _zero_groups(matrices)
    yield from _dead(outline, [each for each in matrices if each.tensor.is_settled])
    yield from _varying(outline)
    yield from _leftovers(outline)


def _announced(outline: Outline, matrices: Sequence[Counted]) -> Iterator[Phrase]:
    """Yield announced patterns and shares of zeros that the weights do not have."""
    settings, pattern = _sparsity_config(outline), announced_pattern(outline)
    share = settings.get("global_sparsity")
    zeros, total = (sum(getattr(each.counts, n) for each in matrices) for n in ("zeros", "total"))
    if isinstance(share, float) and total and zeros / total < share - _APART:
        yield phrase("check.announced_share", announced=share, share=zeros / total)
    ignored = settings.get("ignore")
    names = {*map(str, ignored)} if isinstance(ignored, list) else set()
    inside = [each for each in matrices if each.tensor.is_settled and each.tensor.name not in names]
    broken = {each.tensor.name: b for each in inside if pattern and (b := each.broken(pattern))}
    # Exceptions by regular expression are not evaluated.
    if broken and not any(name.startswith("re:") for name in names):
        name, place = next(iter(broken.items()))
        counts = {"broken": len(broken), "matrices": len(inside)}
        announced = {"pattern": str(pattern), "name": name, "place": place}
        yield phrase("check.announced_pattern", **announced, **counts)


def announced_pattern(outline: Outline) -> Pattern | None:
    """Return the N:M pattern that a configuration announces."""
    structure = _sparsity_config(outline).get("sparsity_structure")
    return read_pattern(structure) if isinstance(structure, str) else None


def _sparsity_config(outline: Outline) -> Mapping[str, Any]:
    sources = (outline.config, outline.scheme.settings)
    configs = (each.get("sparsity_config") for each in sources)
    return next((each for each in configs if isinstance(each, dict)), {})


def _special_numbers(counted: Sequence[Counted]) -> Iterator[Phrase]:
    """Yield numbers that are not finite or denormal, and rows of one value."""
    special: dict[str, Callable[[Counted], int]] = {
        "check.nan": lambda each: each.counts.nan,
        "check.infinite": lambda each: each.counts.infinite,
        "check.denormal": lambda each: (
            each.counts.denormal
            * (each.tensor.entry.dtype in _FLUSHED and not each.tensor.parameter.packing)
        ),
        "check.constant_rows": lambda each: each.counts.constant_rows,
    }
    for key, number in special.items():
        numbers = {each.tensor.name: n for each in counted if (n := number(each))}
        if numbers:
            yield phrase(key, count=sum(numbers.values()), modules=[*numbers])


def _zero_groups(matrices: Sequence[Counted]) -> Iterator[Phrase]:
    """Yield the groups of weights with a scale of 0."""
    settled = [m for m in matrices if m.tensor.is_settled and m.counts.first_zero_group]
    if settled:
        sums = [sum(each.counts.zero_groups.get(size, 0) for each in settled) for size in GROUPS]
        first = settled[0]
        assert first.counts.first_zero_group is not None
        place = _place(first.counts.first_zero_group, GROUPS[0])
        numbers = dict(zip(("small", "middle", "large"), sums, strict=True))
        names = {"matrices": len(settled), "name": first.tensor.name}
        yield phrase("check.zero_groups", place=place, **numbers, **names)


def _dead(outline: Outline, matrices: Sequence[Counted]) -> Iterator[Phrase]:
    """Yield layers, experts, heads, rows and columns without a nonzero, as the audit of studies."""
    dead: dict[str, list[Any]] = defaultdict(list)
    head_dim, heads = _heads(outline.config)
    for each in matrices:
        name, filled = each.tensor.name, (each.counts.filled_rows, each.counts.filled_columns)
        experts = np.flatnonzero(~filled[0].any(axis=1)).tolist()
        if len(experts) == len(filled[0]):
            dead["audit.zero_layers"].append(name)
        else:
            dead["check.zero_experts"] += [
                phrase("check.expert", module=name, expert=e) for e in experts
            ]
        lines = dict(zip(("audit.zero_rows", "audit.zero_columns"), filled, strict=True))
        flat = filled[name.rpartition(".")[2] in OUTPUT_WORDS].reshape(-1)
        is_attention = each.tensor.parameter.group == "attention_linear"
        if is_attention and flat.size in {number * head_dim for number in heads}:
            lines["audit.zero_heads"] = np.asarray(flat.reshape(-1, head_dim).any(axis=1))
        for key, flags in lines.items():
            if number := flags.size - int(np.count_nonzero(flags)):
                dead[key].append(phrase("audit.module_count", module=name, count=number))
    for key, modules in dead.items():
        if modules:
            yield phrase(key, variants=[outline.name], modules=modules)


def _heads(config: Mapping[str, Any]) -> tuple[int, set[int]]:
    """Return the width of an attention head, and the numbers of heads that a projection has."""
    inner = config.get("text_config")
    settings = {**config, **(inner if isinstance(inner, dict) else {})}

    def first(*names: str) -> int:
        values = (settings.get(name) for name in names)
        return next((n for n in values if type(n) is int and n > 0), 0)

    heads = first("num_attention_heads", "n_head", "num_heads", "n_heads")
    pairs = first("num_key_value_heads") or heads
    width = first("hidden_size", "n_embd", "d_model", "dim")
    head_dim = first("head_dim") or (width // heads if heads else 0)
    return head_dim, {heads, pairs, heads + 2 * pairs} if head_dim else set()


def varying(outline: Outline) -> list[str]:
    """Return the matrices that differ in shape between blocks, with ``*`` for their numbers.

    Blocks are numbered modules as many as a number of the configuration says.
    """
    settings = (outline.config, outline.metadata, *outline.config.values())
    holders = [each for each in settings if isinstance(each, Mapping)]
    announced = {value for each in holders for value in each.values() if type(value) is int}
    shapes: dict[str, set[tuple[int, ...]]] = defaultdict(set)
    matrices = {each.name: each.shape for each in outline.stored if len(each.shape) > 1}
    for prefix, numbers in _blocks(matrices).items():
        if len(numbers) in announced and len(numbers) == max(numbers) + 1:
            for name in chain.from_iterable(numbers.values()):
                rest = _NUMBER.sub(r"\1*", name[len(prefix) :])
                shapes[prefix + rest].add(matrices[name])
    return [name for name, sizes in shapes.items() if len(sizes) > 1]


def _blocks(names: Iterable[str]) -> dict[str, dict[int, list[str]]]:
    """Return names by the text before their first number, and by that number."""
    blocks: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        if match := _NUMBER.search(name):
            blocks[name[: match.end(1)]][int(match[0].lstrip("."))].append(name)
    return blocks


def _varying(outline: Outline) -> Iterator[Phrase]:
    """Yield a note on blocks of different shapes, and the runtimes known to load some such."""
    if names := varying(outline):
        cells = {runtime.name: runtime.cells["uneven"].verdict for runtime in RUNTIMES.values()}
        loading = [name for name, verdict in cells.items() if verdict not in {REFUSED, UNKNOWN}]
        listed = "per_layer_config" in outline.config
        key = "check.varying_listed" if listed else "check.varying"
        yield phrase(key, modules=names, runtimes=loading, date=LOOKED_AT)


def _leftovers(outline: Outline) -> Iterator[Phrase]:
    """Yield tensors beyond the last block, and those named after another one of their shape."""
    shapes = {each.name: each.shape for each in outline.stored}
    beside = {}
    for name, shape in shapes.items():
        cuts = [match.start() for match in re.finditer(r"[._]", name)]
        shorter = chain((name[:cut] for cut in cuts), (name[cut + 1 :] for cut in cuts))
        if len(shape) > 1 and (twin := next((n for n in shorter if shapes.get(n) == shape), "")):
            beside[name] = twin
    if beside:
        name, twin = next(iter(beside.items()))
        yield phrase("check.leftovers", count=len(beside), name=name, twin=twin)
    yield from _beyond(outline, shapes)


def _beyond(outline: Outline, names: Iterable[str]) -> Iterator[Phrase]:
    """Yield tensors of blocks after the last one of the configuration."""
    blocks = outline.config.get("num_hidden_layers")
    for numbers in _blocks(names).values():
        if type(blocks) is int and 0 < blocks < len(numbers) and {*range(blocks)} <= numbers.keys():
            beyond = [number for number in numbers if number >= blocks]
            first = numbers[min(beyond)][0]
            yield phrase("check.beyond", count=len(beyond), blocks=blocks, first=first)
