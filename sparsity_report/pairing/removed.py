"""What of a base is gone, thing by thing, and what went with each.

A weight is told once, with the largest thing it was part of: a block before an expert, an expert
before a head or a channel, and these before channels of the width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile

from sparsity_report.pairing.alignment import Alignment, Place
from sparsity_report.pairing.matches import Plan
from sparsity_report.pairing.roles import Part, Segment

Block = tuple[str, int]
# Kinds of things inside of a block, those that are told first.
_ORDER = ("expert", "head", "kv_head", "channel", "vocabulary", "width")
KINDS = ("block", "attention", "mlp", "layer", *_ORDER)
"""Whatever can be gone, in the order in which it is told."""
# What a block can lose as a whole, by the groups of its modules.
_SUBMODULES = {"attention_linear": "attention", "mlp_linear": "mlp", "router": "mlp"}
_MODULES = {"vocabulary": "embed", "width": "embed"}


@dataclass(frozen=True)
class Thing:
    """What is gone."""

    kind: str
    module: str
    index: int | None
    among: int
    block: int | None


@dataclass
class Loss:
    """What went with it."""

    certainty: float = 1.0
    weights: int = 0
    parameters: int = 0
    bytes: int = 0
    flops: Fraction = Fraction(0)

    def add(self, part: Part, count: int, weight: bool, multiplied: bool) -> None:
        """Add so many values of a parameter."""
        p = part.parameter
        self.weights += count if weight else 0
        self.parameters += count
        self.bytes += count * p.itemsize
        if p.matrix and multiplied:
            self.flops += 2 * count * p.uses


def gone(plan: Plan) -> dict[Thing, Loss]:
    """Return what of a base is gone, in its order."""
    found = plan.alignment
    losses: dict[Thing, Loss] = defaultdict(Loss)
    tied = {"head"} if any(p.matrix and p.tied_to for p in plan.after.parameters) else set()
    there = {link.before.parameter.name for link in plan.links if link.before and link.after}
    emptied = _emptied(found, there)
    for part in found.before.parts:
        weight = part.parameter.name in _weights(part)
        if part.parameter.name in there:
            for thing, certainty, count in _inside(found, part):
                loss = losses[thing]
                loss.certainty = min(loss.certainty, certainty)
                # A token is sent to as many experts as before.
                loss.add(part, count, weight, thing.kind != "expert" or not _mixed(part))
            continue
        thing, certainty = _whole(found, part) or (_layer(part, there, emptied), 1.0)
        loss = losses[thing]
        loss.certainty = min(loss.certainty, certainty)
        # A head that is the embedding now is multiplied by as before.
        multiplied = thing.kind != "expert" and part.role not in tied
        loss.add(part, part.parameter.total, weight, multiplied)
    _tied_head(plan, losses)
    return dict(sorted(losses.items(), key=lambda item: KINDS.index(item[0].kind)))


def _emptied(found: Alignment, there: Set[str]) -> Mapping[Block, Mapping[str, Thing]]:
    """Find the blocks that have no attention, or no feed-forward layer, any more."""
    parts: dict[Block, dict[str, list[Part]]] = defaultdict(lambda: defaultdict(list))
    for part in found.before.parts:
        if part.block is not None and (kind := _SUBMODULES.get(part.module.group)):
            parts[part.stack, part.block][kind].append(part)
    things: dict[Block, dict[str, Thing]] = defaultdict(dict)
    for place, kinds in parts.items():
        for kind, some in kinds.items():
            if not any(part.parameter.name in there for part in some):
                names = [part.parameter.name.split(".")[:-1] for part in some]
                shared = takewhile(lambda words: len(set(words)) == 1, zip(*names, strict=False))
                name = ".".join(words[0] for words in shared)
                things[place][kind] = Thing(kind, name, None, 1, place[1])
    return things


def _layer(part: Part, there: Set[str], emptied: Mapping[Block, Mapping[str, Thing]]) -> Thing:
    """Return the smallest thing that a parameter was the whole of, with all that is gone too."""
    if any(p.name in there for p in part.module.parameters):
        return Thing("layer", part.parameter.name, None, 1, part.block)
    things = emptied.get((part.stack, part.block or 0), {}) if part.block is not None else {}
    if thing := things.get(_SUBMODULES.get(part.module.group, "")):
        return thing
    if part.module.group == "norm" and len(things) == 1:
        return next(iter(things.values()))  # its own norm
    return Thing("layer", part.module.name, None, 1, part.block)


def _mixed(part: Part) -> bool:
    return bool(part.stacked) or part.expert is not None


def _weights(part: Part) -> list[str]:
    """Name what a study calls the weights of a module: its matrices, else its first parameter."""
    stored = [p for p in part.module.parameters if p.tied_to is None]
    return [p.name for p in [p for p in stored if p.matrix] or stored[:1]]


def _whole(found: Alignment, part: Part) -> tuple[Thing, float] | None:
    """Return the block or expert, all of it gone, that a parameter was part of."""
    if part.block is not None and part.stack in found.stacks.values():
        numbers = found.before.blocks(part.stack)
        match = found.blocks[part.stack]
        place = numbers.index(part.block)
        if place in match.gone:
            name = f"{part.stack}.{part.block}"
            return Thing("block", name, part.block, len(numbers), part.block), match.gone[place]
        experts = found.units.get(("expert", (part.stack, part.block, None)))
        if experts and part.expert is not None:
            known = found.before.experts(part.stack, part.block)
            if (place := known.index(part.expert)) in experts.gone:
                name = part.parameter.name.partition(f".{part.expert}.")[0]
                if f".{part.block}." in f"{name}.":
                    name = _experts_name(part)
                thing = Thing("expert", name, part.expert, len(known), part.block)
                return thing, experts.gone[place]
    return None


def _experts_name(part: Part) -> str:
    """Return the module that holds the experts of a block."""
    words = part.parameter.name.split(".")
    last = max(i for i, word in enumerate(words) if "expert" in word)
    return ".".join(words[: last + 1])


def _inside(found: Alignment, part: Part) -> Iterator[tuple[Thing, float, int]]:
    """Yield the things that are gone from a parameter that stays, and how many values of it."""
    place: Place = (part.stack if part.block is not None else "", part.block, part.expert)
    sides = [list(part.rows), list(part.columns) or [Segment("", 1)]]
    if not part.stacked:
        yield from _of_matrix(found, part, place, sides)
        return
    experts = found.match("expert", place, part.stacked)
    whole = part.parameter.total // part.stacked
    for index, sure in experts.gone.items():
        yield (Thing("expert", _experts_name(part), index, part.stacked, part.block), sure, whole)
    for index in sorted(experts.index.tolist()):
        yield from _of_matrix(found, part, (*place[:2], index), sides)


def _of_matrix(
    found: Alignment, part: Part, place: Place, sides: list[list[Segment]]
) -> Iterator[tuple[Thing, float, int]]:
    """Go through the kinds in their order; what is told is not there for the next."""
    left = [sum(segment.size for segment in side) for side in sides]
    for kind in _ORDER:
        for number, side in enumerate(sides):
            for segment in side:
                if segment.axis.partition(",")[0] != kind:
                    continue
                match = found.match(segment.axis, place, segment.units)
                for index, sure in match.gone.items():
                    count = segment.lines * left[1 - number]
                    yield _thing(found, part, place, segment, index), sure, count
                left[number] -= segment.lines * len(match.gone)


def _thing(found: Alignment, part: Part, place: Place, segment: Segment, index: int) -> Thing:
    kind = segment.axis.partition(",")[0]
    if kind in _MODULES:
        table = found.before.at("", None)["embed", "weight"]
        return Thing(kind, table.module.name, index, segment.units, None)
    return Thing(kind, _home(found, part, place), index, segment.units, part.block)


def _home(found: Alignment, part: Part, place: Place) -> str:
    """Name the module that heads, channels or experts of a place are in."""
    beside = found.before.at(part.stack, part.block, part.expert)
    if part.role == "router":
        stacks = [p for p in found.before.parts if (p.stack, p.block) == place[:2] and _mixed(p)]
        return _experts_name(stacks[0]) if stacks else part.module.name.rpartition(".")[0]
    attention = part.module.group == "attention_linear"
    _, comma, more = part.role.partition(",")
    for role in ("q", "qkv") if attention else ("gate", "up", "gate_up"):
        if (told := beside.get((f"{role}{comma}{more}", "weight"))) is not None:
            if told.stacked:
                return f"{_experts_name(told)}.{place[2]}"
            return told.module.name.rpartition(".")[0]
    return part.module.name.rpartition(".")[0]


def _tied_head(plan: Plan, losses: dict[Thing, Loss]) -> None:
    """Add the FLOPs of an output head that is the embedding; its values are told there."""
    found = plan.alignment
    owners = {part.parameter.name: part for part in found.before.parts}
    for p in found.before.weights.parameters:
        if p.tied_to is None or p.matrix is None or p.tied_to not in owners:
            continue
        for thing, _, count in _inside(found, owners[p.tied_to]):
            losses[thing].flops += 2 * count * p.uses
