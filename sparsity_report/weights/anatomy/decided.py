"""Rule by which names, shapes and ``config.json`` describe a checkpoint as its class does.

A file is decided if each tensor has a known place and each key that matters is there. A tensor
that no pattern explains, such as a buffer, an adapter or a further block, leaves it undecided. The
class of transformers is then asked.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sparsity_report.weights.anatomy.names_only import (
    EXPERTS_PER_TOKEN,
    Description,
    expert_stacks,
    first_count,
)
from sparsity_report.weights.matrix_direction import Shape
from sparsity_report.weights.packed.quantization_config import SETTINGS_KEYS

_GROUPS = {"embedding", "attention_linear", "mlp_linear", "norm", "lm_head", "router"}
# Names of a setting in the configurations of different models.
_BLOCKS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim", "n_embed")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
# Blocks of one tower: the text before their number, the number, and the rest.
_BLOCK = re.compile(
    r"(?P<tower>(?:[A-Za-z_]+\.)*(?:h|layers?|blocks?))\.(?P<number>\d{1,9})\.(?P<rest>.+)"
)
# Modules beside the blocks; the pooler belongs to models without a head.
_POOLER = re.compile(r"(^|\.)pooler\.dense$")
_HEADED = ("ForCausalLM", "LMHeadModel")


def is_decided(
    description: Description, stored: Collection[str], config: Mapping[str, Any]
) -> bool:
    """Return whether names, shapes and a configuration describe a model without its class.

    Parameters
    ----------
    description : Description
        Modules by names.
    stored : collection of str
        Parameters that the files hold.
    config : mapping
        Content of ``config.json``.
    """
    return not description.unsettled and all(_requirements(description, stored, config))


def _requirements(
    description: Description, stored: Collection[str], config: Mapping[str, Any]
) -> Iterator[bool]:
    """Yield whether each requirement on a file is met; cheap ones first."""
    architectures = config.get("architectures")
    yield isinstance(architectures, list) and len(architectures) == 1
    assert isinstance(architectures, list)
    is_headed = str(architectures[0]).endswith(_HEADED)
    yield is_headed or str(architectures[0]).endswith("Model")
    # Configurations inside of others belong to models of several towers.
    inner = [value for key, value in config.items() if key not in SETTINGS_KEYS]
    yield not any(isinstance(value, dict) and "model_type" in value for value in inner)
    named = [(m.name, m.group, p) for m in description.modules for p in m.parameters]
    shapes = {p.name: p.shape for _, _, p in named if p.name in stored}
    # No other parameters, convolutions or fused experts.
    yield all(name.endswith((".weight", ".bias")) for name in shapes)
    yield all(len(shape) < 3 for shape in shapes.values())
    pooler = set() if is_headed else {name for name, *_ in named if _POOLER.search(name)}
    yield all(group in _GROUPS or name in pooler for name, group, _ in named)
    yield _has_whole_blocks(shapes, config)
    of_groups: dict[str, list[Shape]] = defaultdict(list)
    for _, group, parameter in named:
        of_groups[group].append(parameter.shape)
    yield _has_known_experts(shapes, of_groups["router"], config)
    # One table of the announced vocabulary, and each matrix of the announced width.
    width, tables = first_count(config, *_WIDTH) or 0, of_groups["embedding"]
    yield tables.count((first_count(config, "vocab_size") or 0, width)) == 1
    yield all(len(table) == 2 and table[1] == width for table in tables)
    yield all(width in s for name, s in shapes.items() if len(s) == 2 and _BLOCK.match(name))
    # A head that is stored or tied, none in a body; the setting decides on equal bytes.
    heads = {p.name for _, group, p in named if group == "lm_head" and len(p.shape) == 2}
    ties = {p.name for _, _, p in named if p.tied_to}
    yield len(heads | ties) == int(is_headed)
    yield config.get("tie_word_embeddings") is True or ties.isdisjoint(stored)


def _has_whole_blocks(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> bool:
    """Return whether there is one tower, of as many blocks as announced, all of the same shapes."""
    numbers: dict[str, set[int]] = defaultdict(set)
    kinds: dict[str, set[Shape]] = defaultdict(set)
    for name, shape in shapes.items():
        if match := _BLOCK.match(name):
            numbers[match["tower"]].add(int(match["number"]))
            kinds[match["rest"]].add(shape)
        elif re.search(r"\.\d", name):
            return False
    count = first_count(config, *_BLOCKS) or 0
    is_even = all(len(sizes) == 1 for sizes in kinds.values())
    return is_even and [(len(n), max(n)) for n in numbers.values()] == [(count, count - 1)]


def _has_known_experts(
    shapes: Mapping[str, Shape], routers: Collection[Shape], config: Mapping[str, Any]
) -> bool:
    """Return whether the experts are those of the configuration, with a router for each stack."""
    stacks, per_token = expert_stacks(shapes), first_count(config, *EXPERTS_PER_TOKEN)
    announced = {config[key] for key in _EXPERTS if isinstance(config.get(key), int)}
    chosen = [shape for shape in routers if len(shape) == 2 and shape[0] in announced]
    if not stacks and not per_token:
        return not chosen
    counts = {*stacks.values()}
    return bool(stacks and per_token) and counts == announced and len(chosen) == len(stacks)
