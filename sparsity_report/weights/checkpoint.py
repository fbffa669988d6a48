"""Checkpoints in a transformers directory: their tensors matched with the model they belong to.

The model is built from ``config.json`` on the meta device, and transformers' own renaming rules
say which tensor on disk is which parameter in memory; so file and module routes agree. Without a
config, names and shapes alone decide.
"""

from __future__ import annotations

import json
import math
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.base import ONCE, Module, Parameter, Weights
from sparsity_report.weights.groups import LINEAR_GROUPS, classify
from sparsity_report.weights.skeleton import attention_widths, describe, meta_model, walk
from sparsity_report.weights.slices import Slice, joined


@dataclass(frozen=True)
class Entry:
    """A tensor on disk: its file, its key there, shape and torch dtype name."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def total(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class CheckpointWeights(Weights):
    """Weights read from files on demand; subclasses say where the values of one tensor are."""

    def __init__(
        self,
        path: Path,
        entries: Mapping[str, Entry],
        *,
        name: str,
        source: str,
        skeleton: nn.Module | None,
        keys: Mapping[str, str | None],
        blacklist: Collection[str],
        groups: Mapping[str, str] | None,
        notes: tuple[str, ...] = (),
        experts_used: Fraction = ONCE,
    ) -> None:
        parts: dict[str, list[Entry]] = defaultdict(list)
        for key, target in keys.items():
            if target is not None:
                parts[target].append(entries[key])
        if skeleton is None:
            modules = _describe_names(parts, blacklist, groups, experts_used)
        else:
            places = walk(skeleton)
            modules = describe(
                places,
                blacklist=blacklist,
                rules=groups,
                dtype=_dtypes(skeleton, parts),
                known=True,
            )
            _check_complete(name, modules, parts, source == "gguf")
        super().__init__(
            name=name,
            source=source,
            architecture="" if skeleton is None else type(skeleton).__name__,
            modules=modules,
            attention_widths=None if skeleton is None else attention_widths(places),
            notes=notes,
        )
        self.path = path
        self._parts = dict(parts)

    @abstractmethod
    def cut(self, entry: Entry) -> Iterable[Slice]:
        """Return one tensor of a file as slices."""

    def slices(self, name: str) -> Iterator[Slice]:
        """Yield the values of a parameter; of one in several pieces on disk, piece after piece."""
        for entry in self._entries(name):
            yield from self.cut(entry)

    def tokenizer(self) -> Any:
        """Load the tokenizer beside the weights, or inside a GGUF file, with transformers."""
        from transformers import AutoTokenizer

        directory = self.path.parent if self.path.is_file() else self.path
        inside = {"gguf_file": self.path.name} if self.source == "gguf" else {}
        try:
            return AutoTokenizer.from_pretrained(directory, local_files_only=True, **inside)
        except Exception as error:
            raise SparsityReportError(
                f"{directory} has no tokenizer that opens ({error}); pass tokenizer="
            ) from error

    def tensor(self, name: str) -> torch.Tensor:
        """Return the values of a parameter; one kept in several pieces on disk comes stacked."""
        # Counting needs every value once; the exact fused arrangement does not matter to it.
        dtype = getattr(torch, self._entries(name)[0].dtype)
        return joined(list(self.slices(name)), dtype, self[name].shape)

    def _entries(self, name: str) -> list[Entry]:
        if name not in self._parts:
            raise SparsityReportError(f"{self.name} has no tensor for {name!r}")
        return self._parts[name]


def read_config(directory: Path) -> tuple[nn.Module | None, tuple[str, ...]]:
    """Build the meta model of ``config.json``; None and a note where it cannot be known."""
    path = directory / "config.json"
    if not path.is_file():
        return None, ("no config.json: groups follow from tensor names and shapes alone",)
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        kind = known["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SparsityReportError(f"{path} is not a transformers config: {error!r}") from error
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return None, (
            f"transformers does not know model type {kind!r}: "
            "groups follow from tensor names and shapes alone",
        )
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # each config class validates in its own way
        raise SparsityReportError(f"{path}: {_first_line(error)}") from error
    return skeleton_of(config, path), ()


def skeleton_of(config: Any, where: Path) -> nn.Module:
    """Build a config on the meta device or say why it cannot be built."""
    try:
        return meta_model(config, config.architectures or ())
    except Exception as error:  # a hostile config can fail anywhere inside transformers
        raise SparsityReportError(
            f"{where}: no model can be built from this config: {_first_line(error)}"
        ) from error


def memory_names(skeleton: nn.Module | None, keys: Collection[str]) -> dict[str, str | None]:
    """Map each tensor on disk to its parameter in memory; None for what transformers ignores.

    Tensors that are fused in memory come in the order in which they are: expert by expert, within
    an expert in the order of transformers' conversion rule.
    """
    if skeleton is None:
        return {key: key for key in keys}
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    transforms = get_model_conversion_mapping(skeleton)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    fused = [pattern for converter in converters for pattern in converter.source_patterns]
    meta_state = skeleton.state_dict()
    parameters = {name for name, _ in skeleton.named_parameters(remove_duplicate=False)}
    prefix = getattr(skeleton, "base_model_prefix", None)
    ignored = [
        re.compile(p) for p in getattr(skeleton, "_keys_to_ignore_on_load_unexpected", None) or ()
    ]
    names: list[tuple[tuple[list[int], int], str, str | None]] = []
    extra = []
    for key in keys:
        name, pattern = rename_source_key(key, renamings, converters, prefix, meta_state)
        place = [int(part) for part in key.split(".") if part.isdecimal()]
        order = (place, fused.index(pattern) if pattern in fused else -1)
        if name in parameters:
            names.append((order, key, name))
        elif name in meta_state or _is_buffer(key) or any(p.search(name) for p in ignored):
            names.append((order, key, None))
        else:
            extra.append(key)
    if masks := [key for key in extra if key.endswith("_mask")]:
        raise SparsityReportError(
            f"the checkpoint holds {len(masks)} pruning masks that were never applied, first "
            f"{masks[0]!r}; call torch.nn.utils.prune.remove before saving it"
        )
    if extra:
        raise SparsityReportError(
            f"{len(extra)} tensor(s) of the checkpoint have no place in "
            f"{type(skeleton).__name__}, first {extra[0]!r}; is config.json of the same model?"
        )
    return {key: name for _, key, name in sorted(names, key=lambda item: item[0])}


# Buffers older checkpoints carry and current classes compute: masks, position ids, rotary tables.
_BUFFER = re.compile(
    r"(^|\.)(position_ids|token_type_ids|masked_bias|attn\.bias|attention\.bias|inv_freq|"
    r"rotary_emb\.\w+|num_batches_tracked)$"
)


def _is_buffer(key: str) -> bool:
    return bool(_BUFFER.search(key))


def _dtypes(skeleton: nn.Module, parts: Mapping[str, list[Entry]]) -> Any:
    own = {
        name: str(p.dtype).removeprefix("torch.")
        for name, p in skeleton.named_parameters(remove_duplicate=False)
    }
    first = {id(p): n for n, p in skeleton.named_parameters(remove_duplicate=False) if n in parts}
    ties = {n: first.get(id(p), n) for n, p in skeleton.named_parameters(remove_duplicate=False)}

    def dtype(name: str) -> str:
        entries = parts.get(ties.get(name, name))
        return entries[0].dtype if entries else own[name]

    return dtype


def _check_complete(
    name: str, modules: tuple[Module, ...], parts: dict[str, list[Entry]], any_arrangement: bool
) -> None:
    """Every stored parameter must be on disk with its number of elements; move ties to owners."""
    stored = {p.name: p for m in modules for p in m.parameters if p.tied_to is None}
    for module in modules:
        for p in module.parameters:
            if p.tied_to and p.name in parts:
                pieces = parts.pop(p.name)
                parts.setdefault(p.tied_to, pieces)
    missing = [n for n in stored if n not in parts]
    if missing:
        raise SparsityReportError(
            f"{name}: {len(missing)} tensor(s) are missing from the checkpoint, "
            f"first {missing[0]!r}; counting would be wrong, fetch the whole checkpoint"
        )
    for parameter_name, parameter in stored.items():
        entries = parts[parameter_name]
        same = entries[0].shape == parameter.shape or any_arrangement
        if (len(entries) == 1 and not same) or sum(e.total for e in entries) != parameter.total:
            shapes = ", ".join(str(e.shape) for e in entries[:3])
            raise SparsityReportError(
                f"{name}: {parameter_name} has shape {shapes} on disk but {parameter.shape} "
                "in the model of config.json; they are not of the same model"
            )


def _describe_names(
    parts: Mapping[str, list[Entry]],
    blacklist: Collection[str],
    rules: Mapping[str, str] | None,
    experts_used: Fraction,
) -> tuple[Module, ...]:
    owned: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for name, (entry, *_) in parts.items():
        owned[name.rpartition(".")[0]].append((name, entry))
    modules = []
    for module_name, tensors in owned.items():
        # llama.cpp keeps the experts of a block in one tensor, and kernels without their middle 1.
        fused, kernel = module_name.endswith("_exps"), module_name.endswith("conv1d")
        wide = next((e for n, e in tensors if len(e.shape) == 2 + fused and _is_weight(n)), None)
        wide = None if kernel else wide
        group = classify(module_name, linear=wide is not None, rules=rules)
        multiplied = group in LINEAR_GROUPS or group in {"lm_head", "router"}
        may_prune = group in LINEAR_GROUPS and not set(blacklist) & set(module_name.split("."))
        parameters = tuple(
            Parameter(
                name=name,
                shape=entry.shape,
                dtype=entry.dtype,
                itemsize=getattr(torch, entry.dtype).itemsize,
                matrix=(entry.shape[-2], entry.shape[-1]) if entry is wide and multiplied else None,
                experts=entry.shape[0] if fused and entry is wide else 1,
                uses=experts_used if fused else ONCE,
                prunable=may_prune and entry is wide,
            )
            for name, entry in tensors
        )
        modules.append(Module(module_name, "", group, parameters))
    return tuple(modules)


def _is_weight(name: str) -> bool:
    return name.rpartition(".")[2] == "weight"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
