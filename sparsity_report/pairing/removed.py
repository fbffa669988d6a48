"""The parts of a base that were removed, and the weights, bytes and FLOPs removed with each.

A weight is counted once, with the largest part that it belonged to: a block before an expert, an
expert before a head or a channel, and these before channels of the width.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile

from sparsity_report.pairing.alignment import Alignment, Plan
from sparsity_report.pairing.roles import Part, Place, Segment

Block = tuple[str, int]
# Units inside a block, in the order in which their weights are counted.
_UNITS = ("expert", "head", "kv_head", "channel", "vocabulary", "width")
# Units of the whole model, reported under the name of the embedding.
_WHOLE = {"vocabulary", "width"}
KINDS = ("block", "attention", "mlp", "layer", *_UNITS)
"""Kinds of parts that can be removed, in the order of tables."""
# Part of a block that the modules of each group belong to.
_SUBMODULES = {"attention_linear": "attention", "mlp_linear": "mlp", "router": "mlp"}


@dataclass(frozen=True)
class RemovedPart:
    """A removed part: its kind, module, index among how many, and block.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    module : str
    index : int or None
        Number among units of its kind.
    among : int
        Number of these units in the base.
    block : int or None
    """

    kind: str
    module: str
    index: int | None
    among: int
    block: int | None


# Attention and feed-forward layers without parameters after, by block.
_Emptied = Mapping[Block, Mapping[str, RemovedPart]]


@dataclass
class Loss:
    """Sums over the parameters of a removed part; FLOPs per token."""

    certainty: float = 1.0
    weights: int = 0
    parameters: int = 0
    bytes: int = 0
    flops: Fraction = Fraction(0)

    def add(self, part: Part, count: int, certainty: float, multiplied: bool) -> None:
        """Add some values of a parameter; FLOPs only if the model multiplied by them."""
        p = part.parameter
        self.certainty = min(self.certainty, certainty)
        self.weights += count if p.name in {each.name for each in part.module.weights} else 0
        self.parameters += count
        self.bytes += count * p.itemsize
        if p.matrix and multiplied:
            self.flops += 2 * count * p.uses


def find_removed(plan: Plan) -> dict[RemovedPart, Loss]:
    """Return the removed parts of a base, in the order of :data:`KINDS`, and their losses."""
    alignment = plan.alignment
    losses: dict[RemovedPart, Loss] = defaultdict(Loss)
    tied = {"head"} if any(p.matrix and p.tied_to for p in plan.after.parameters) else set()
    left = {match.before.parameter.name for match in plan.matches if match.before and match.after}
    emptied = _emptied_submodules(alignment, left)
    for part in alignment.before.parts:
        if part.parameter.name in left:
            for removed, certainty, count in _removed_units(alignment, part):
                # The number of experts per token does not change.
                multiplied = removed.kind != "expert" or (not part.stacked and part.expert is None)
                losses[removed].add(part, count, certainty, multiplied)
            continue
        removed, certainty = _removed_block_or_expert(alignment, part) or (
            _removed_layer(part, left, emptied),
            1.0,
        )
        # The model still multiplies by an output head that is now tied.
        multiplied = removed.kind != "expert" and part.role not in tied
        losses[removed].add(part, part.parameter.total, certainty, multiplied)
    _add_tied_head(plan, losses)
    return dict(sorted(losses.items(), key=lambda item: KINDS.index(item[0].kind)))


def _emptied_submodules(alignment: Alignment, left: Set[str]) -> _Emptied:
    """Return the attention and feed-forward layers without parameters after, by block."""
    parts: dict[Block, dict[str, list[Part]]] = defaultdict(lambda: defaultdict(list))
    for part in alignment.before.parts:
        if part.block is not None and (kind := _SUBMODULES.get(part.module.group)):
            parts[part.stack, part.block][kind].append(part)
    emptied: dict[Block, dict[str, RemovedPart]] = defaultdict(dict)
    for block, kinds in parts.items():
        for kind, some in kinds.items():
            if not any(part.parameter.name in left for part in some):
                names = [part.parameter.name.split(".")[:-1] for part in some]
                shared = takewhile(lambda words: len(set(words)) == 1, zip(*names, strict=False))
                name = ".".join(words[0] for words in shared)
                emptied[block][kind] = RemovedPart(kind, name, None, 1, block[1])
    return emptied


def _removed_layer(part: Part, left: Set[str], emptied: _Emptied) -> RemovedPart:
    """Return the smallest removed part that holds all of a removed parameter."""
    if any(p.name in left for p in part.module.parameters):
        return RemovedPart("layer", part.parameter.name, None, 1, part.block)
    submodules = emptied.get((part.stack, part.block or 0), {}) if part.block is not None else {}
    if removed := submodules.get(_SUBMODULES.get(part.module.group, "")):
        return removed
    if part.module.group == "norm" and len(submodules) == 1:
        return next(iter(submodules.values()))  # the norm before it
    return RemovedPart("layer", part.module.name, None, 1, part.block)


def _removed_block_or_expert(alignment: Alignment, part: Part) -> tuple[RemovedPart, float] | None:
    """Return the removed block or expert that a parameter belonged to, with its certainty."""
    if part.block is None or part.stack not in alignment.stacks.values():
        return None
    numbers = alignment.before.blocks(part.stack)
    removed = alignment.match("block", part.place, len(numbers)).removed
    if (place := numbers.index(part.block)) in removed:
        name = f"{part.stack}.{part.block}"
        return RemovedPart("block", name, part.block, len(numbers), part.block), removed[place]
    if part.expert is not None:
        known = alignment.before.experts(part.stack, part.block)
        experts = alignment.match("expert", part.place, len(known))
        if (place := known.index(part.expert)) in experts.removed:
            expert = RemovedPart("expert", experts.module, part.expert, len(known), part.block)
            return expert, experts.removed[place]
    return None


def _removed_units(alignment: Alignment, part: Part) -> Iterator[tuple[RemovedPart, float, int]]:
    """Yield the removed units of a remaining parameter, their certainty and number of values."""
    if not part.stacked:
        yield from _removed_lines(alignment, part, part.place)
        return
    experts = alignment.match("expert", part.place, part.stacked)
    size = part.parameter.total // part.stacked
    for index, certainty in experts.removed.items():
        expert = RemovedPart("expert", experts.module, index, part.stacked, part.block)
        yield expert, certainty, size
    for index in sorted(experts.index.tolist()):
        yield from _removed_lines(alignment, part, (*part.place[:2], index))


def _removed_lines(
    alignment: Alignment, part: Part, place: Place
) -> Iterator[tuple[RemovedPart, float, int]]:
    """Yield the removed units of one matrix; values of one kind are not counted again."""
    sides = [list(part.rows), list(part.columns) or [Segment("", 1)]]
    left = [sum(segment.size for segment in side) for side in sides]
    for kind in _UNITS:
        for number, side in enumerate(sides):
            for segment in side:
                if segment.axis.partition(",")[0] != kind:
                    continue
                match = alignment.match(segment.axis, place, segment.units)
                for index, certainty in match.removed.items():
                    block = None if kind in _WHOLE else part.block
                    removed = RemovedPart(kind, match.module, index, segment.units, block)
                    yield removed, certainty, segment.lines * left[1 - number]
                left[number] -= segment.lines * len(match.removed)


def _add_tied_head(plan: Plan, losses: dict[RemovedPart, Loss]) -> None:
    """Add the FLOPs of an output head tied to the embedding, whose values are counted already."""
    alignment = plan.alignment
    owners = {part.parameter.name: part for part in alignment.before.parts}
    for p in plan.before.parameters:
        if p.tied_to is None or p.matrix is None or p.tied_to not in owners:
            continue
        for removed, _, count in _removed_units(alignment, owners[p.tied_to]):
            losses[removed].flops += 2 * count * p.uses
