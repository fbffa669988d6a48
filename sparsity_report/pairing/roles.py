"""Roles of parameters in a model, and the axes of their rows and columns.

An axis is the width of the model, its vocabulary, or the heads, key-value heads, feed-forward
channels or experts of a block. Tensors of a block share its axes, so that a removed head is removed
from all of them. The role of a matrix follows from its name. Without a known name, a size equal to
the width is the width.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from sparsity_report.weights.weights import Module, Parameter, Weights

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
# Names of the output matrix of attention and of the feed-forward layer.
_OUTPUTS = {"dense", "c_proj", "wo"}
# Fused matrices with the query, key and value rows of each head side by side.
_BY_HEAD = "query_key_value"
# Experts with alternating gate and up rows.
_IN_TURNS = "GptOss"
# Matrices in a fused one, in the order of its rows.
_FUSED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
# Axes of rows and columns by role.
_AXES = {
    "q": ("head", "width"), "k": ("kv_head", "width"), "v": ("kv_head", "width"),
    "o": ("width", "head"), "gate": ("channel", "width"), "up": ("channel", "width"),
    "down": ("width", "channel"), "qkv": ("", "width"), "gate_up": ("", "width"),
    "router": ("expert", "width"), "embed": ("vocabulary", "width"),
    "head": ("vocabulary", "width"),
}  # fmt: skip


Place = tuple[str, int | None, int | None]
"""Stack, block and expert."""
# Stack, block and suffix of roles.
_Family = tuple[str, int | None, str]
# Rows of queries and keys, and columns of outputs, by role.
_Sizes = dict[str, int]
OUTSIDE: Place = ("", None, None)
"""The place of parameters outside of blocks."""


class Segment(NamedTuple):
    """Consecutive rows or columns of one axis.

    Attributes
    ----------
    axis : str
        Kind of unit, with a suffix if a block has several such axes, as in ``"channel, shared"``.
    units, lines : int
        Number of units, and rows or columns per unit.
    """

    axis: str
    units: int
    lines: int = 1

    @property
    def size(self) -> int:
        """Number of rows or columns."""
        return self.units * self.lines


Sides = tuple[tuple[Segment, ...], tuple[Segment, ...]]
"""Segments of the rows and of the columns of a matrix."""


def have_same_axes(before: Sides, after: Sides) -> bool:
    """Return whether rows and columns have the same axes, or equal sizes without an axis."""
    kinds = [[[s.axis or s.size for s in side] for side in sides] for sides in (before, after)]
    return kinds[0] == kinds[1]


@dataclass(frozen=True)
class Part:
    """A parameter with its place, its role and its axes.

    Attributes
    ----------
    parameter : Parameter
    module : Module
    stack : str
        Name before the number of its block; empty outside of blocks.
    block, expert : int or None
    role : str
        A role common to all models, such as ``"q"``, or else its name in its block.
    leaf : str
        ``"weight"`` or ``"bias"``.
    rows, columns : tuple of Segment
        Outputs and inputs of a matrix; a vector has only rows.
    stacked : int
        Number of experts in the tensor; 0 for a single matrix.
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
        """Role and leaf, unique in its place."""
        return self.role, self.leaf

    @property
    def place(self) -> Place:
        """Stack, block and expert."""
        return self.stack, self.block, self.expert

    @property
    def sides(self) -> Sides:
        """Rows and columns."""
        return self.rows, self.columns


Parts = Mapping[tuple[str, str], Part]
"""Parts by role and leaf."""


@dataclass(frozen=True, eq=False)
class ModelRoles:
    """The parameters of a model by place and role.

    Attributes
    ----------
    weights : Weights
    parts : tuple of Part
    head : int or None
        Rows of a head.
    places : mapping
        Parts by place, then by role and leaf.
    """

    weights: Weights
    parts: tuple[Part, ...]
    head: int | None
    places: Mapping[Place, Parts]

    def at(self, stack: str, block: int | None, expert: int | None = None) -> Parts:
        """Return the parts in a place, by role and leaf."""
        return self.places.get((stack, block, expert), {})

    def blocks(self, stack: str) -> list[int]:
        """Return the numbers of the blocks of a stack."""
        return self._numbers.get((stack,), [])

    def experts(self, stack: str, block: int) -> list[int]:
        """Return the numbers of the experts of a block that have separate tensors."""
        return self._numbers.get((stack, block), [])

    @property
    def stacks(self) -> list[str]:
        """Names of the stacks of blocks."""
        return [str(prefix[0]) for prefix in self._numbers if len(prefix) == 1]

    @cached_property
    def _numbers(self) -> dict[tuple[str | int | None, ...], list[int]]:
        """Blocks by stack, and experts by stack and block."""
        numbers: dict[tuple[str | int | None, ...], set[int]] = defaultdict(set)
        for stack, block, expert in self.places:
            if block is not None:
                numbers[stack,].add(block)
            if expert is not None:
                numbers[stack, block].add(expert)
        return {prefix: sorted(some) for prefix, some in numbers.items()}


def assign_roles(weights: Weights, head: int | None = None) -> ModelRoles:
    """Return the stored parameters of a model with their roles.

    Parameters
    ----------
    weights : Weights
    head : int, optional
        Rows of a head if the model does not define it.
    """
    parts = [_place(m, p) for m in weights.modules for p in m.parameters if p.tied_to is None]
    tables = [p.parameter.shape for p in parts if p.role == "embed"]
    width = max(tables, key=math.prod)[1] if tables else None
    head_sizes = {p.parameter.head_dim for p in parts if p.role in {"q", "qkv"}} - {None}
    head = head_sizes.pop() if len(head_sizes) == 1 else head
    sizes: dict[_Family, _Sizes] = defaultdict(dict)
    for part in parts:
        role, _, suffix = part.role.partition(",")
        if part.leaf == "weight" and role in {"q", "k", "o"}:
            rows, columns = _sizes(part)
            sizes[part.stack, part.block, suffix][role] = columns if role == "o" else rows
    complete = (_with_axes(part, width, head or 1, sizes) for part in parts)
    return _model_roles(weights, complete, head)


def _model_roles(weights: Weights, parts: Iterable[Part], head: int | None) -> ModelRoles:
    places: dict[Place, dict[tuple[str, str], Part]] = {}
    named = []
    for part in parts:
        place = places.setdefault(part.place, {})
        # A second part with the same role, such as another bias, gets its name as role.
        role = part.parameter.name if part.key in place else part.role
        named.append(replace(part, role=role))
        place[named[-1].key] = named[-1]
    return ModelRoles(weights, tuple(named), head, places)


def separate_key_heads(*models: ModelRoles) -> tuple[ModelRoles, ...]:
    """Give key-value heads an axis in all models if one of them has such an axis.

    A model with equally many key-value heads and heads may be pruned from one with more heads.
    """
    axes = {segment.axis for model in models for part in model.parts for segment in part.rows}
    if not any(axis.startswith("kv_head") for axis in axes):
        return models
    return tuple(
        _model_roles(m.weights, [_with_key_heads(p) for p in m.parts], m.head) for m in models
    )


def _with_key_heads(part: Part) -> Part:
    rows = part.rows
    first = {"k": 0, "v": 0, "qkv": 1}.get(part.role.partition(",")[0], len(rows))
    renamed = (
        s._replace(axis=f"kv_{s.axis}") if s.axis.startswith("head") else s for s in rows[first:]
    )
    return replace(part, rows=(*rows[:first], *renamed))


def _place(module: Module, parameter: Parameter) -> Part:
    """Return a parameter with its place and role, by its name."""
    words = parameter.name.split(".")
    leaf = "bias" if words[-1] == "bias" or words[-1].endswith("_bias") else "weight"
    if words[-1] in {"weight", "bias"}:
        words.pop()
    elif leaf == "bias":
        words[-1] = words[-1].removesuffix("_bias").replace("in_proj", "in_proj_weight")
    numbers = [i for i, word in enumerate(words) if word.isdecimal() and len(word) < 10]
    if module.block is None or not numbers:
        role = {"embedding": "embed", "lm_head": "head"}.get(module.group, ".".join(words))
        if role == "embed" and (
            len(parameter.shape) != 2
            or any("position" in w or w in {"wpe", "token_type_embeddings"} for w in words)
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
    # Shared experts process all tokens.
    shared = any(word.startswith("shared_expert") for word in words)
    cross = any(word in {"encoder_attn", "crossattention", "EncDecAttention"} for word in words)
    return f"{role}, shared" if shared else f"{role}, cross" if cross else role


def _sizes(part: Part) -> tuple[int, int]:
    """Return the outputs and inputs of a matrix; a vector has 0 inputs."""
    rows, *columns = stored_sizes(part.parameter.shape, _stacked(part))
    if not columns:
        return rows, 0
    return (columns[0], rows) if part.parameter.transposed else (rows, columns[0])


def stored_sizes(shape: tuple[int, ...], stacked: int) -> tuple[int, ...]:
    """Return the rows and columns of a matrix, or of each expert, as stored; the rows of a vector.

    The weights of an output of a convolution are one row.

    Examples
    --------
    >>> stored_sizes((64, 16, 3), stacked=0), stored_sizes((8, 32, 64), stacked=8)
    ((64, 48), (32, 64))
    """
    rows, *others = shape[bool(stacked) :] or (1,)
    return (rows, math.prod(others)) if others else (rows,)


def _stacked(part: Part) -> int:
    shape = part.parameter.shape
    many = len(shape) == 3 or (len(shape) == 2 and part.leaf == "bias")
    mixed = part.role.partition(",")[0] in {"gate_up", "gate", "up", "down"}
    return shape[0] if many and mixed and part.expert is None else 0


def _with_axes(part: Part, width: int | None, head: int, sizes: Mapping[_Family, _Sizes]) -> Part:
    """Return a part with the axes of its rows and columns."""
    base, comma, suffix = part.role.partition(",")
    sizes_of_part = width, head, sizes[part.stack, part.block, suffix]
    rows, columns = (
        tuple(
            s if s.axis in {"", "width"} else s._replace(axis=f"{s.axis}{comma}{suffix}")
            for s in _segments(part, base, side, size, sizes_of_part)
        )
        for side, size in enumerate(_sizes(part))
    )
    columns = columns if _sizes(part)[1] else ()
    return replace(part, rows=rows, columns=columns, stacked=_stacked(part))


def _segments(
    part: Part, role: str, side: int, size: int, sizes_of_part: tuple[int | None, int, _Sizes]
) -> Iterator[Segment]:
    """Yield the segments of rows (side 0) or columns (side 1)."""
    width, head, sizes = sizes_of_part
    if role == "gate_up" and side == 0 and size % 2 == 0:
        if part.module.class_name.startswith(_IN_TURNS):
            yield Segment("channel", size // 2, 2)
        else:
            yield from [Segment("channel", size // 2)] * 2
        return
    if role == "qkv" and side == 0:
        yield from _fused_segments(part, size, head, sizes)
        return
    axis = _AXES.get(role, ("", ""))[side]
    if axis == "kv_head" and sizes.get("k") == sizes.get("q"):
        axis = "head"
    if axis in {"head", "kv_head"}:
        lines = head if size % head == 0 else 1
        yield Segment(axis, size // lines, lines)
    elif axis in {"", "width"}:
        # A filter has a column for each of its positions over each input.
        is_filter = side == 1 and math.prod(part.parameter.shape[bool(_stacked(part)) + 2 :]) > 1
        yield Segment("width" if size == width and not is_filter else "", size)
    else:
        yield Segment(axis, size)


def _fused_segments(part: Part, size: int, head: int, sizes: _Sizes) -> Iterator[Segment]:
    """Yield the segments of the rows of a fused query, key and value matrix."""
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


def experts_module(part: Part) -> str:
    """Return the name of the module that holds the experts of a block."""
    words = part.parameter.name.split(".")
    named = [i for i, word in enumerate(words) if "expert" in word]
    last = max(named, default=len(words) - 2)
    return ".".join(words[: last + 1])


class Piece(NamedTuple):
    """A matrix inside a parameter: some rows of one expert.

    Attributes
    ----------
    expert : int or None
        Index in a tensor of several experts.
    first, last : int
        Rows, outputs first.
    """

    expert: int | None
    first: int
    last: int


def split_fused(part: Part) -> Iterator[tuple[tuple[str, str], Piece]]:
    """Yield the separate matrices in a parameter, with their roles."""
    role, _, suffix = part.role.partition(",")
    tail = f",{suffix}" if suffix else ""
    fused = _FUSED.get(role, ()) if len(part.rows) > 1 else ()
    for expert in range(part.stacked) if part.stacked else (None,):
        start = 0
        for name, segment in zip(fused or (role,), part.rows, strict=False):
            size = segment.size if fused else sum(s.size for s in part.rows)
            yield (f"{name}{tail}", part.leaf), Piece(expert, start, start + size)
            start += size
