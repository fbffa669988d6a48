"""Checkpoints without some experts: the kept tensors of files on disk under new numbers.

In safetensors, the number of experts is the setting whose change shortens the parameters that hold
experts and nothing else. These parameters lead to their tensors on disk, and those to the scales
beside them. In GGUF, tensors of experts have their names in llama.cpp.
"""

from __future__ import annotations

import json
import re
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from math import prod
from typing import TYPE_CHECKING, Any

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.weights.anatomy.config_sizes import parameters_for
from sparsity_report.weights.anatomy.converted_values import Converted
from sparsity_report.weights.anatomy.decided_files import EXPERT_COUNTS
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.quantization_config import read_scheme
from sparsity_report.weights.sources.checkpoint import CheckpointWeights, match_entries
from sparsity_report.weights.sources.gguf_files import ARCHITECTURE
from sparsity_report.weights.sources.gguf_model import GGUFWeights
from sparsity_report.weights.tensor_slices import Entry, FileSlice, JoinedRuns, LocalFile
from sparsity_report.weights.weights import Weights
from sparsity_report.words.sentences import say, says

if TYPE_CHECKING:
    from torch import nn

# Number of an expert, after the name of its stack.
_NUMBER = re.compile(r"\.(0|[1-9]\d*)(?=\.|$)")
# Tensors of a GGUF file with experts along their first dimension, or of the expert of a number.
_GGUF = re.compile(
    r"(?P<stack>blk\.(?P<block>\d+)\.(?!\w*shexp)(?:ffn_\w*exps|ffn_gate_inp(?=\.(?:weight|bias)$)|"
    r"exp_probs_b|\w*eid|ffn_(?:gate|up|down)(?=\.\d)))(?:\.|$)(?P<number>\d*)"
)
# Note of a model that does not run without values.
_BY_RULE = "note.uses_by_rule"

# Kept experts in ascending order, by the module that holds the stack.
Kept = Mapping[str, Sequence[int]]
# Shape of a tensor, and the axis of the experts.
_Place = tuple[tuple[int, ...], int]


def keep_experts(
    weights: Weights, kept: Kept, counts: Mapping[str, int], name: str
) -> CheckpointWeights:
    """Return a checkpoint with some experts, whose values stay in the files of the given one.

    Parameters
    ----------
    weights : Weights
        A safetensors checkpoint or a GGUF model on this disk.
    kept : mapping of str to sequence of int
        Kept experts in ascending order, by each module in memory that holds a stack of them.
    counts : mapping of str to int
        Number of experts of each module.
    name : str
        Name of the new model.

    Raises
    ------
    SparsityReportError
        The weights are from another source, modules or groups would keep unequal numbers of
        experts, or tensors do not show which experts they belong to.
    """
    if not isinstance(weights, CheckpointWeights) or weights.source not in ("safetensors", "gguf"):
        raise weights.wrong(
            "is no safetensors checkpoint or GGUF model, and experts are left out of those only; "
            "write a checkpoint with sparsity-report expand"
        )
    weights.require_local()
    sizes = {(counts[module], len(picks)) for module, picks in kept.items()}
    if len(sizes) > 1 or not weights.files:
        raise weights.wrong(
            "would keep unequal numbers of experts, or lacks some already, and its settings have "
            "one number for all; keep equally many in each module of the whole checkpoint"
        )
    ((count, size),) = sizes
    selection = _Selection(weights, kept, count)
    if isinstance(weights, GGUFWeights):
        selection.add_by_name(weights.metadata)
        return weights.with_experts(selection.entries(), size, name)
    settings, places = _smaller(weights, kept, count, size)
    for parameter, place in places.items():
        selection.add(parameter, *place)
    selection.check_settings(settings)
    options = replace(weights.options, name=name)
    if unread := selection.unread():
        note = say("note.experts_unread", count=len(unread), first=min(unread))
        options = replace(options, notes=(*options.notes, note))
    entries = selection.entries(unread)
    fewer = match_entries(weights.path, options, weights.source, entries, settings)
    before, after = ([n for n in w.notes if says(n, _BY_RULE)] for w in (weights, fewer))
    if after and not before:
        raise weights.wrong(
            f"cannot run with {size:,} of {count:,} experts in a module: "
            f"{printable(after[0], 300)}; keep another number"
        )
    return fewer


def _smaller(
    weights: CheckpointWeights, kept: Kept, count: int, size: int
) -> tuple[dict[str, Any], dict[str, _Place]]:
    """Return settings with fewer experts, and the place of experts in parameters and buffers.

    Other parameters that change with the setting do not fit the files and are refused later.
    """
    settings, most = weights.configuration(), parameters_for(len(weights.raw))
    keys = [key for key in EXPERT_COUNTS if settings.get(key) == count]
    if weights.is_decided and len(keys) == 1:
        shapes = {
            p.name: (p.shape, 0)
            for module in weights.modules
            for p in module.parameters
            if module.name in kept or (module.group == "router" and p.shape[0] == count)
        }
        return {**settings, keys[0]: size}, shapes
    model: Any = weights.require_runnable()
    from sparsity_report.weights.anatomy.meta_model import read_config, without_head

    configs = (model.config, *vars(model.config).values())
    aliases = ChainMap(*(getattr(config, "attribute_map", {}) for config in configs))
    names = {key: aliases.get(key, key) for key in _settings(settings, count)}
    for name in dict.fromkeys(names.values()):
        changed = _changed(settings, {key for key in names if names[key] == name}, size)
        try:
            smaller: Any = read_config(weights.directory, None, most, changed)
            if type(smaller) is not type(model):
                smaller = without_head(smaller, most)
        except SparsityReportError:  # another setting than the number of experts
            continue
        places = _shortened(model, smaller, count, size)
        # Experts of each module, and routers outside of them.
        around = {next((m for m in kept if name.startswith(f"{m}.")), "") for name in places}
        if around == {*kept, ""}:
            return changed, places
    raise weights.wrong(
        f"has {count:,} experts in a module, and no setting of its config.json changes this number "
        "alone; save it with the class of transformers for it"
    )


def _settings(settings: object, count: int) -> Iterator[str]:
    """Yield the names of settings on experts, at any depth, that are a number."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        yield from [key] if "expert" in key and value == count else _settings(value, count)


def _changed(settings: Any, names: Collection[str], size: int) -> Any:
    """Return a configuration with a new number under some names, at any depth."""
    if not isinstance(settings, dict):
        return settings
    changed = {key: _changed(value, names, size) for key, value in settings.items()}
    return changed | dict.fromkeys(changed.keys() & names, size)


def _shortened(model: nn.Module, smaller: nn.Module, count: int, size: int) -> dict[str, _Place]:
    """Return the shape of each tensor that loses experts, and their axis in it."""
    after = {name: tuple(tensor.shape) for name, tensor in smaller.state_dict().items()}
    places: dict[str, _Place] = {}
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        for axis, length in enumerate(shape):
            fewer = (*shape[:axis], length // count * size, *shape[axis + 1 :])
            if length % count == 0 and shape != fewer == after.get(name):
                places[name] = shape, axis
    return places


@dataclass(frozen=True)
class _Selection:
    """Tensors on disk that hold experts.

    Attributes
    ----------
    weights : CheckpointWeights
    kept : mapping
    count : int
        Experts of each module before.
    stacks : dict
        Kept experts by the name before the number of an expert.
    stacked : dict
        Kept experts and their axis by the tensor that holds those of all.
    """

    weights: CheckpointWeights
    kept: Kept
    count: int
    stacks: dict[str, tuple[int, ...]] = field(default_factory=dict)
    stacked: dict[str, tuple[tuple[int, ...], int]] = field(default_factory=dict)

    def add(self, parameter: str, shape: tuple[int, ...], axis: int) -> None:
        """Add the tensors of a parameter or buffer whose experts lie along an axis."""
        raw = [*_raw(self.weights.contents.parts.get(parameter, ()))]
        names = [entry.key.split(".") for entry in raw]
        root = _shared(names)
        numbers = {name[len(root)] for name in names if len(name) > len(root)}
        if numbers == {str(number) for number in range(self.count)}:
            self.stacks[".".join(root)] = self._picks(parameter)
            return
        for entry in raw:
            is_whole = entry.shape == shape or (axis == 0 and entry.shape[:1] == shape[:1])
            if is_whole and isinstance(entry.values, FileSlice):
                self.stacked[entry.key] = self._picks(parameter), axis
            elif entry.total != 1 and entry.key in self.weights.raw:
                raise entry.wrong(
                    f"holds {parameter} in the shape {entry.shape}, which does not show the "
                    "experts; write it unpacked with sparsity-report expand"
                )

    def add_by_name(self, metadata: Mapping[str, Any]) -> None:
        """Add the tensors of a GGUF file; refuse one that does not show the experts."""
        parts = self.weights.contents.parts
        blocks, routed = dict[str, tuple[int, ...]](), set()
        for module in self.weights.modules:
            if module.name in self.kept:
                block = parts[module.parameters[0].name][0].key.split(".")[1]
                blocks[block] = tuple(self.kept[module.name])
        for key, entry in self.weights.raw.items():
            if not (match := _GGUF.match(key)):
                continue
            block, stack, number = match["block"], match["stack"], match["number"]
            if block not in blocks or not (number or entry.shape[:1] == (self.count,)):
                raise entry.wrong(
                    f"has the shape {entry.shape}, which is no known layout of {self.count:,} "
                    "experts; give a file in the layout of current versions of llama.cpp"
                )
            if number:
                self.stacks[stack] = blocks[block]
            else:
                self.stacked[key] = blocks[block], 0
            routed |= {block} if stack.endswith("_inp") else set()
        key = f"{metadata.get(ARCHITECTURE)}.expert_count"
        if routed != blocks.keys() or metadata.get(key) != self.count:
            raise self.weights.wrong(
                f"has {len(routed):,} routers for the experts of {len(blocks):,} blocks and "
                f"{metadata.get(key)} as {key}, which is no known layout; give a file in the "
                "layout of current versions of llama.cpp"
            )

    def _picks(self, parameter: str) -> tuple[int, ...]:
        """Return the kept experts of the module that is nearest by its name, ties included."""
        names = [parameter]
        if not self.weights.is_decided:
            tensors = self.weights.require_runnable().state_dict(keep_vars=True)
            names = [name for name, tensor in tensors.items() if tensor is tensors[parameter]]
        nearest: set[str] = set()
        for name in names:
            words = name.split(".")
            shared = {module: len(_shared([module.split("."), words])) for module in self.kept}
            nearest |= {module for module in shared if shared[module] == max(shared.values())}
        picks, *others = {tuple(self.kept[module]) for module in nearest}
        if others:
            raise self.weights.wrong(
                f"has one {parameter} for {' and '.join(sorted(nearest))}, which would keep "
                "different experts; keep the same in each"
            )
        return picks

    def unread(self) -> set[str]:
        """Return tensors of modules that transformers leaves out, if experts are among them."""
        contents = self.weights.contents
        read = {raw.key for entries in contents.parts.values() for raw in _raw(entries)}
        unread = {raw.key for raw in _raw(contents.entries.values())} - read
        words = {name.rpartition(".")[2] for name in (*self.stacks, *self.kept)}
        if not any(words & {*key.split(".")} for key in unread):
            return set()
        owners = {key.rpartition(".")[0] for key in unread}
        return {key for key in self.weights.raw.keys() - read if key.rpartition(".")[0] in owners}

    def renamed(self, name: str) -> str | None:
        """Return the new name of a tensor or module; None for one of a removed expert."""
        for match in _NUMBER.finditer(name):
            if picks := self.stacks.get(name[: match.start()]):
                if (number := int(match[1])) not in picks:
                    return None
                return f"{name[: match.start(1)]}{picks.index(number)}{name[match.end() :]}"
        return name

    def entries(self, unread: Collection[str] = ()) -> dict[str, Entry]:
        """Return the tensors of the smaller checkpoint."""
        taken = (self.entry(e) for key, e in self.weights.raw.items() if key not in unread)
        return {entry.key: entry for entry in taken if entry}

    def entry(self, entry: Entry) -> Entry | None:
        """Return a tensor with its kept experts, under its new name; None if none is kept."""
        if entry.key not in self.stacked:
            key = self.renamed(entry.key)
            return None if key is None else replace(entry, key=key)
        (picks, axis), values, shape = self.stacked[entry.key], entry.values, [*entry.shape]
        assert isinstance(values, FileSlice)
        assert isinstance(values.file, LocalFile)
        around = prod(shape[:axis])
        size = values.nbytes // around // self.count
        starts = (row * self.count + number for row in range(around) for number in picks)
        runs = tuple((values.offset + start * size, size) for start in starts)
        file = JoinedRuns(values.file.path, values.file.size, values.file.modified_ns, runs)
        shape[axis] = shape[axis] // self.count * len(picks)
        kept = replace(values, total=prod(shape), file=file, offset=0)
        return replace(entry, shape=tuple(shape), values=kept)

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Refuse settings that name single experts by their former numbers."""
        scheme = read_scheme(self.weights.directory, settings)
        words = "|".join({re.escape(name.rpartition(".")[2]) for name in self.stacks})
        text = json.dumps([settings, dict(scheme.settings)])
        if words and (single := re.search(rf'[^"]*({words})\\*\.\d[^"]*', text)):
            raise self.weights.wrong(
                f"names the expert {printable(single[0], 200)} in its settings, which would be "
                "another one; remove the entry, or write the model unpacked with sparsity-report "
                "expand"
            )


def _shared(names: Iterable[Sequence[str]]) -> list[str]:
    """Return the words with which all names begin."""
    alike = takewhile(lambda words: len({*words}) == 1, zip(*names, strict=False))
    return [first for first, *_ in alike]


def _raw(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the tensors in files that parameters are made of."""
    for entry in entries:
        if isinstance(entry.values, Converted | Packed):
            yield from _raw(entry.values.parts)
        else:
            yield entry
