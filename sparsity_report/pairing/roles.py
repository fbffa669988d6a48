"""What each parameter does in its block, and what its rows and columns are.

A matrix has rows and columns of six kinds: the width of the model, its vocabulary, heads, heads of
keys and values, channels of a feed-forward layer, experts. Those of one kind in one place are one
axis, whatever tensor they stand in, so that a head that is gone is gone from all of them. Names say
which matrix is which; where they do not, a size that is the model's width is the width.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from sparsity_report.weights.anatomy.parameters import Module, Parameter
from sparsity_report.weights.weights import Weights

_WORDS = {
    "q": "q_proj query q q_lin wq attn_q",
    "k": "k_proj key k k_lin wk attn_k",
    "v": "v_proj value v v_lin wv attn_v",
    "qkv": "c_attn qkv_proj query_key_value Wqkv wqkv in_proj_weight attn_qkv",
    "o": "o_proj out_proj out_lin attn_output o",
    "gate": "gate_proj w1 ffn_gate wi_0",
    "up": "up_proj w3 fc1 c_fc dense_h_to_4h lin1 ffn_up wi wi_1",
    "down": "down_proj w2 fc2 dense_4h_to_h lin2 ffn_down",
    "gate_up": "gate_up_proj",
}
_ROLES = {word: role for role, words in _WORDS.items() for word in words.split()}
# Words that stand for the output of attention and of the feed-forward layer alike.
_OUTPUTS = {"dense", "c_proj", "wo"}
# Fused matrices in which each head has its own query, key and value, one after the other.
_BY_HEAD = "query_key_value"
# Experts whose gate and up rows come in turns.
_IN_TURNS = "GptOss"
# What the rows and the columns are.
_AXES = {
    "q": ("head", "width"),
    "k": ("kv_head", "width"),
    "v": ("kv_head", "width"),
    "o": ("width", "head"),
    "gate": ("channel", "width"),
    "up": ("channel", "width"),
    "down": ("width", "channel"),
    "router": ("expert", "width"),
    "embed": ("vocabulary", "width"),
    "head": ("vocabulary", "width"),
}


class Segment(NamedTuple):
    """A run of rows or columns: so many units of so many lines of one axis.

    Attributes
    ----------
    axis : str
        A kind, and behind a comma what sets it apart from others of that kind in the same block,
        such as ``"channel, shared"``.
    units, lines : int
    """

    axis: str
    units: int
    lines: int = 1

    @property
    def size(self) -> int:
        """Rows or columns."""
        return self.units * self.lines


@dataclass(frozen=True)
class Part:
    """A parameter with its place and its role.

    Attributes
    ----------
    parameter : Parameter
    module : Module
    stack : str
        What stands before the number of its block; all of the name outside of blocks.
    block, expert : int or None
    role : str
        As in a block of any model, else its name in its block.
    leaf : str
        ``"weight"`` or ``"bias"``.
    rows, columns : tuple of Segment
        Outputs and inputs of a matrix; a vector has rows only.
    stacked : int
        Experts in the tensor; 0 of one matrix.
    """

    parameter: Parameter
    module: Module
    stack: str
    block: int | None
    expert: int | None
    role: str
    leaf: str
    rows: tuple[Segment, ...] = ()
    columns: tuple[Segment, ...] = ()
    stacked: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """What it is called in its place."""
        return self.role, self.leaf


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A model's parameters by place and role.

    Attributes
    ----------
    weights : Weights
    parts : tuple of Part
    width, head : int or None
        Of the model, and of a head.
    """

    weights: Weights
    parts: tuple[Part, ...]
    width: int | None
    head: int | None
    places: Mapping[tuple[str, int | None, int | None], Mapping[tuple[str, str], Part]] = field(
        default_factory=dict
    )

    def at(
        self, stack: str, block: int | None, expert: int | None = None
    ) -> Mapping[tuple[str, str], Part]:
        """Return what stands in a place, by role and leaf."""
        return self.places.get((stack, block, expert), {})

    def blocks(self, stack: str) -> list[int]:
        """Return the numbers of the blocks of a stack."""
        return self._blocks.get(stack, [])

    def experts(self, stack: str, block: int) -> list[int]:
        """Return the numbers of the experts of a block that are tensors of their own."""
        return self._experts.get((stack, block), [])

    @property
    def stacks(self) -> list[str]:
        """Names of what holds blocks."""
        return list(self._blocks)

    @cached_property
    def _blocks(self) -> dict[str, list[int]]:
        found: dict[str, set[int]] = defaultdict(set)
        for stack, block, _ in self.places:
            if block is not None:
                found[stack].add(block)
        return {stack: sorted(numbers) for stack, numbers in found.items()}

    @cached_property
    def _experts(self) -> dict[tuple[str, int | None], list[int]]:
        found: dict[tuple[str, int | None], set[int]] = defaultdict(set)
        for stack, block, expert in self.places:
            if expert is not None:
                found[stack, block].add(expert)
        return {place: sorted(numbers) for place, numbers in found.items()}


def anatomy(weights: Weights, head: int | None = None, model: Anatomy | None = None) -> Anatomy:
    """Sort the stored parameters of a model.

    Parameters
    ----------
    weights : Weights
    head : int, optional
        Lines of a head where the model does not say.
    model : Anatomy, optional
        Of a model that tells which way square matrices lie, as their shapes do not.
    """
    found = [_placed(m, p) for m in weights.modules for p in m.parameters if p.tied_to is None]
    if model is not None:
        found = _lying(found, model)
    tables = [p.parameter.shape for p in found if p.role == "embed" and len(p.parameter.shape) == 2]
    width = max(tables, key=math.prod)[1] if tables else None
    told = {p.parameter.head_dim for p in found if p.role in {"q", "qkv"}} - {None}
    head = told.pop() if len(told) == 1 else head
    sizes: dict[tuple[str, int | None, str], dict[str, int]] = defaultdict(dict)
    for part in found:
        role, _, more = part.role.partition(",")
        if part.leaf == "weight" and role in {"q", "k", "o"}:
            rows, columns = _sizes(part)
            sizes[part.stack, part.block, more][role] = columns if role == "o" else rows
    parts = tuple(
        _with_lines(
            part, width, head or 1, sizes[part.stack, part.block, part.role.partition(",")[2]]
        )
        for part in found
    )
    return _anatomy(weights, parts, width, head)


def _anatomy(
    weights: Weights, parts: Iterable[Part], width: int | None, head: int | None
) -> Anatomy:
    places: dict[tuple[str, int | None, int | None], dict[tuple[str, str], Part]] = {}
    named = []
    for part in parts:
        place = places.setdefault((part.stack, part.block, part.expert), {})
        # Of two biases of one output head, say, the second is called by its name.
        role = part.parameter.name if part.key in place else part.role
        named.append(replace(part, role=role))
        place[named[-1].key] = named[-1]
    return Anatomy(weights, tuple(named), width, head, places)


def grouped(*models: Anatomy) -> tuple[Anatomy, ...]:
    """Let heads of keys be no heads of queries in all models if that is so in one of them.

    A model with as many of one as of the other may be what is left of one that had more queries.
    """
    axes = {segment.axis for model in models for part in model.parts for segment in part.rows}
    if not any(axis.startswith("kv_head") for axis in axes):
        return models
    return tuple(
        _anatomy(m.weights, [replace(p, rows=_keys_apart(p)) for p in m.parts], m.width, m.head)
        for m in models
    )


def _keys_apart(part: Part) -> tuple[Segment, ...]:
    role, rows = part.role.partition(",")[0], part.rows
    first = {"k": 0, "v": 0, "qkv": 1}.get(role, len(rows))
    return rows[:first] + tuple(
        s._replace(axis=f"kv_{s.axis}") if s.axis.startswith("head") else s for s in rows[first:]
    )


def _lying(parts: list[Part], model: Anatomy) -> list[Part]:
    """Let square matrices lie as those of their role do, or all the other way if others do."""
    known = {p.key: p.parameter.transposed for p in model.parts if p.parameter.matrix}
    biased = {(p.stack, p.block, p.expert, p.role) for p in parts if p.leaf == "bias"}
    votes, square = [], set()
    for part in parts:
        shape = part.parameter.shape
        if part.key not in known or len(shape) != 2 or not part.parameter.matrix:
            continue
        if shape[0] == shape[1]:
            square.add(part.parameter.name)
        elif (part.stack, part.block, part.expert, part.role) in biased:
            votes.append(part.parameter.transposed == known[part.key])
    other = bool(votes) and not any(votes)
    return [
        replace(p, parameter=replace(p.parameter, transposed=known[p.key] != other))
        if p.parameter.name in square
        else p
        for p in parts
    ]


def _placed(module: Module, parameter: Parameter) -> Part:
    """Tell where a parameter stands and what it does there."""
    words = parameter.name.split(".")
    leaf = (
        "bias" if words[-1] in {"bias", "in_proj_bias"} or words[-1].endswith("_bias") else "weight"
    )
    if words[-1] in {"weight", "bias"}:
        words.pop()
    elif leaf == "bias":
        words[-1] = words[-1].removesuffix("_bias").replace("in_proj", "in_proj_weight")
    numbers = [i for i, word in enumerate(words) if word.isdecimal() and len(word) < 10]
    if module.block is None or not numbers:
        role = {"embedding": "embed", "lm_head": "head"}.get(module.group, ".".join(words))
        if role == "embed" and any(
            "position" in w or w in {"wpe", "token_type_embeddings"} for w in words
        ):
            role = ".".join(words)
        return Part(parameter, module, "", None, None, role, leaf)
    first, *others = numbers
    inside = [i for i in others if "expert" in words[i - 1]]
    expert = int(words[inside[0]]) if inside else None
    rest = [word for i, word in enumerate(words) if i > first and i not in inside]
    role = _role(module.group, rest)
    return Part(parameter, module, ".".join(words[:first]), int(words[first]), expert, role, leaf)


def _role(group: str, words: list[str]) -> str:
    last = words[-1] if words else ""
    if group == "router":
        return "router"
    if group not in {"attention_linear", "mlp_linear"}:
        return ".".join(words)
    if last in _OUTPUTS:
        if group == "attention_linear":
            return "o"
        return "up" if "intermediate" in words else "down"
    role = _ROLES.get(last, ".".join(words))
    # A mixture has experts that all tokens see beside those that are chosen.
    shared = any(word.startswith("shared_expert") for word in words)
    cross = any(word in {"encoder_attn", "crossattention", "EncDecAttention"} for word in words)
    return f"{role}, shared" if shared else f"{role}, cross" if cross else role


def _sizes(part: Part) -> tuple[int, int]:
    """Rows and columns of a matrix, as outputs and inputs; a vector has no columns."""
    *_, rows, columns = (1, 1, *part.parameter.shape)
    if len(part.parameter.shape) - bool(_stacked(part)) < 2:
        return columns, 0
    return (columns, rows) if part.parameter.transposed else (rows, columns)


def _stacked(part: Part) -> int:
    shape = part.parameter.shape
    many = len(shape) == 3 or (len(shape) == 2 and part.leaf == "bias")
    mixed = part.role.partition(",")[0] in {"gate_up", "gate", "up", "down"}
    return shape[0] if many and mixed and part.expert is None else 0


def _with_lines(part: Part, width: int | None, head: int, sizes: Mapping[str, int]) -> Part:
    """Say what the rows and columns of a parameter are."""
    rows, columns = _sizes(part)
    base, comma, more = part.role.partition(",")
    lines = [
        tuple(
            segment
            if segment.axis in {"", "width"}
            else segment._replace(axis=f"{segment.axis}{comma}{more}")
            for segment in _segments(part, base, side, size, (width, head, sizes))
        )
        for side, size in enumerate((rows, columns))
    ]
    return Part(
        part.parameter, part.module, part.stack, part.block, part.expert, part.role, part.leaf,
        lines[0], lines[1] if columns else (), _stacked(part),
    )  # fmt: skip


def _segments(
    part: Part, role: str, side: int, size: int, about: tuple[int | None, int, Mapping[str, int]]
) -> Iterator[Segment]:
    """Cut rows (side 0) or columns (1) into what they are."""
    width, head, sizes = about
    if role == "gate_up" and side == 0 and size % 2 == 0:
        if part.module.class_name.startswith(_IN_TURNS):
            yield Segment("channel", size // 2, 2)
        else:
            yield from [Segment("channel", size // 2)] * 2
        return
    if role == "qkv" and side == 0:
        yield from _of_fused(part, size, head, sizes)
        return
    axis = {"qkv": ("", "width"), "gate_up": ("", "width")}.get(role, _AXES.get(role, ("", "")))[
        side
    ]
    if axis == "kv_head" and sizes.get("k") == sizes.get("q"):
        axis = "head"
    if axis in {"head", "kv_head"}:
        lines = head if size % head == 0 else 1
        yield Segment(axis, size // lines, lines)
    elif axis in {"", "width"}:
        yield Segment("width" if size == width else "", size)
    else:
        yield Segment(axis, size)


def _of_fused(part: Part, size: int, head: int, sizes: Mapping[str, int]) -> Iterator[Segment]:
    """Cut the rows of query, key and value in one."""
    queries = sizes.get("o", size // 3)
    others, odd = divmod(size - queries, 2)
    if odd or others <= 0 or queries % head or others % head:
        yield Segment("", size)
    elif _BY_HEAD in part.parameter.name and queries == others:
        yield Segment("head", queries // head, 3 * head)
    else:
        kind = "head" if queries == others else "kv_head"
        yield Segment("head", queries // head, head)
        yield from [Segment(kind, others // head, head)] * 2


def cached(part: Part, first: int = 0, last: int | None = None) -> int | None:
    """Return the keys and values that some rows of attention give a token; None if not known."""
    role, _, more = part.role.partition(",")
    if part.module.group != "attention_linear" or part.leaf != "weight" or more:
        return 0
    # One matrix in place of attention, as Puzzletron has it, keeps none.
    alone = part.module.name.endswith(".linear_attn")
    if role in {"q", "o"} or not part.parameter.matrix or alone:
        return 0
    if role == "qkv" and len(part.rows) == 1 and part.rows[0].axis:
        return part.rows[0].size // 3 * 2
    if role not in {"k", "v"} and (role != "qkv" or len(part.rows) != 3):
        return None
    start = total = 0
    for number, segment in enumerate(part.rows):
        inside = first <= start < (last or start + 1)
        total += segment.size if inside and (role != "qkv" or number) else 0
        start += segment.size
    return total
