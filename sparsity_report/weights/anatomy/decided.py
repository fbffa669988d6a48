"""Rule by which names, shapes and ``config.json`` describe a checkpoint as its class does.

A file is decided if each tensor has a known place and each key that matters is there. A tensor
that no pattern explains, such as a buffer, an adapter or a further block, leaves it undecided. The
class of transformers is then asked.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
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
    held = [p for module in description.modules for p in module.parameters]
    shapes = {p.name: p.shape for p in held if p.name in stored}
    ties = {p.name for p in held if p.tied_to}
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or len(architectures) != 1:
        return False
    is_headed = str(architectures[0]).endswith(_HEADED)
    if not is_headed and not str(architectures[0]).endswith("Model"):
        return False
    is_nested = any(
        isinstance(value, dict) and "model_type" in value and key not in SETTINGS_KEYS
        for key, value in config.items()
    )
    return (
        not is_nested
        and not description.unsettled
        and all(name.endswith((".weight", ".bias")) for name in shapes)
        and all(len(shape) < 3 for shape in shapes.values())  # convolutions and fused experts
        and _has_known_groups(description, is_headed)
        and _has_whole_blocks(shapes, config)
        and _has_known_experts(description, shapes, config)
        and _has_known_tables(description, shapes, config)
        and _has_known_head(description, shapes, config, ties, is_headed)
    )


def _has_known_groups(description: Description, is_headed: bool) -> bool:
    """Return whether each module has a group that its name alone decides."""
    return all(
        module.group in _GROUPS or (_POOLER.search(module.name) and not is_headed)
        for module in description.modules
    )


def _has_whole_blocks(shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> bool:
    """Return whether there is one tower, of as many blocks as announced, all of the same shapes."""
    blocks: dict[str, dict[int, dict[str, Shape]]] = defaultdict(lambda: defaultdict(dict))
    for name, shape in shapes.items():
        if match := _BLOCK.match(name):
            blocks[match["tower"]][int(match["number"])][match["rest"]] = shape
        elif re.search(r"\.\d", name):
            return False
    if len(blocks) != 1:
        return False
    (numbers,) = blocks.values()
    count = first_count(config, *_BLOCKS)
    kinds = {rest: shape for block in numbers.values() for rest, shape in block.items()}
    return numbers.keys() == {*range(count or 0)} and all(
        kinds[rest] == shape for block in numbers.values() for rest, shape in block.items()
    )


def _has_known_experts(
    description: Description, shapes: Mapping[str, Shape], config: Mapping[str, Any]
) -> bool:
    """Return whether the experts are those of the configuration, with a router in each block."""
    stacks, per_token = expert_stacks(shapes), first_count(config, *EXPERTS_PER_TOKEN)
    announced = {config[key] for key in _EXPERTS if isinstance(config.get(key), int)}
    routers = [
        module.name
        for module in description.modules
        if module.group == "router" and shapes[module.parameters[0].name][0] in announced
    ]
    if not stacks and not per_token:
        return not routers
    counts = {*stacks.values()}
    return bool(stacks and per_token) and counts == announced and len(routers) == len(stacks)


def _has_known_tables(
    description: Description, shapes: Mapping[str, Shape], config: Mapping[str, Any]
) -> bool:
    """Return whether one table has the announced vocabulary, and each matrix the model's width."""
    width, vocabulary = first_count(config, *_WIDTH), first_count(config, "vocab_size")
    tables = [
        shapes[p.name]
        for module in description.modules
        for p in module.parameters
        if module.group == "embedding" and p.name in shapes
    ]
    blocks = [shape for name, shape in shapes.items() if _BLOCK.match(name) and len(shape) == 2]
    return (
        width is not None
        and tables.count((vocabulary, width)) == 1  # type: ignore[arg-type]
        and all(len(table) == 2 and table[1] == width for table in tables)
        and all(width in shape for shape in blocks)
    )


def _has_known_head(
    description: Description,
    shapes: Mapping[str, Shape],
    config: Mapping[str, Any],
    ties: Collection[str],
    is_headed: bool,
) -> bool:
    """Return whether the head is absent from a body, and stored or tied in another model."""
    heads = [
        p.name
        for module in description.modules
        for p in module.parameters
        if module.group == "lm_head" and len(p.shape) == 2
    ]
    if not is_headed:
        return not heads and not ties
    if any(name in shapes for name in ties):  # equal bytes: the setting decides
        return config.get("tie_word_embeddings") is True
    return len({*heads, *ties}) == 1
