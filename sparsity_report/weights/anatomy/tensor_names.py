"""Map from tensors on disk to parameters in memory, by transformers' loading rules.

Stacked tensors, such as experts, are read one after the other, and parts of a tensor as rows. All
other conversions run transformers' own operation on whole tensors in memory, one rule at a time.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from torch import nn

from sparsity_report.errors import SparsityReportError, first_line
from sparsity_report.weights.anatomy.converted_values import Converted
from sparsity_report.weights.anatomy.names_only import is_buffer, is_padding
from sparsity_report.weights.array_dtypes import Array
from sparsity_report.weights.tensor_slices import Entry, FileSlice, HeldSlice
from sparsity_report.weights.torch_tensors import (
    TensorSlice,
    tensor_dtype,
    to_array,
    to_tensor,
    torch_dtype,
)
from sparsity_report.words.sentences import say

# Limit on computed parameters, whose size comes from a config only.
_MOST_COMPUTED = 2**24


def fits(model: nn.Module, entries: Mapping[str, Entry]) -> bool:
    """Return whether tensors on disk and the parameters of a model match completely."""
    try:
        parts, notes = memory_parts(model, entries)
    except SparsityReportError:
        return False
    return not notes and not without_tensor(model, parts)


def memory_parts(
    model: nn.Module, entries: Mapping[str, Entry]
) -> tuple[dict[str, list[Entry]], tuple[str, ...]]:
    """Return the tensors that make up each parameter in memory, in the order of its values.

    Saved buffers are included. Parameters that transformers computes instead of saving are added.
    Tensors that it ignores are left out, those of modules that the class lacks with a note.

    Parameters
    ----------
    model : nn.Module
        On the meta device.
    entries : mapping of str to Entry
        Tensors on disk by their keys.

    Raises
    ------
    SparsityReportError
        A tensor has no place in the model.
    """
    parts, extra = _placed(model, entries)
    for name in without_tensor(model, parts):
        if name in (getattr(model, "_keys_to_ignore_on_save", None) or ()):
            tensor = _compute(model, name)
            parts[name] = [Entry(name, tuple(tensor.shape), TensorSlice.from_tensor(tensor, 0))]
    extra = {
        key: name
        for key, name in extra.items()
        if not (is_buffer(entries[key]) or is_padding(key, entries))
    }
    lacking, modules = without_tensor(model, parts), dict(model.named_modules())
    apart = {key: module for key, name in extra.items() if (module := _apart(modules, name))}
    ignored = [*map(re.compile, getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())]
    if misplaced := [
        key
        for key, name in extra.items()
        if (lacking or key not in apart) and not any(p.search(name) for p in ignored)
    ]:
        raise SparsityReportError(_misplaced(model, misplaced, lacking))
    if not apart:
        return parts, ()
    left_out = {"tensors": len(apart), "parameters": sum(entries[key].total for key in apart)}
    names = [*dict.fromkeys(apart.values())]
    return parts, (say("note.left_out", model=type(model).__name__, names=names, **left_out),)


def _apart(modules: Mapping[str, nn.Module], name: str) -> str:
    """Return the module of a tensor that a model lacks; empty if it may change one that it has."""
    around = modules[""]
    for dot in re.finditer(r"\.", name):
        if (path := name[: dot.start()]) not in modules:
            return path if around._modules else ""
        around = modules[path]
    return ""


def _placed(
    model: nn.Module, entries: Mapping[str, Entry]
) -> tuple[dict[str, list[Entry]], dict[str, str]]:
    """Return the tensors of each parameter or buffer, and those that belong to none."""
    from transformers import core_model_loading as rules
    from transformers.conversion_mapping import get_model_conversion_mapping

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, rules.WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, rules.WeightConverter)]
    known = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    prefix, state = getattr(model, "base_model_prefix", None), model.state_dict()
    parts: dict[str, list[Entry]] = defaultdict(list)
    extra: dict[str, str] = {}
    taken: dict[str, tuple[Any, list[tuple[str, Entry]]]] = {}
    # Rules may depend on earlier matches, so keep transformers' order.
    for key in sorted(entries, key=rules.dot_natural_key):
        name, pattern = rules.rename_source_key(key, renamings, converters, prefix, state)
        if name not in state and key in state:  # already under its name in memory
            name, pattern = rules.rename_source_key(key, [], [], prefix, state)
        if name not in state:
            extra[key] = name
        elif pattern is None:
            parts[name].append(entries[key])
        else:
            taken.setdefault(name, (known[pattern], []))[1].append((pattern, entries[key]))
    for first, (rule, sources) in taken.items():
        for name, converted in Conversion(model, rule, first, sources).entries().items():
            if name in state:
                parts[name] += converted
            else:
                extra[sources[0][1].key] = name
    return dict(parts), extra


def without_tensor(model: nn.Module, parts: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Return the parameters without a tensor, tied ones considered."""
    names = model.named_parameters(remove_duplicate=False)
    filled = {id(parameter) for name, parameter in names if name in parts}
    return [name for name, parameter in model.named_parameters() if id(parameter) not in filled]


def _misplaced(model: nn.Module, extra: Sequence[str], lacking: Sequence[str]) -> str:
    """Return the error for tensors without a place, with parameters that lack a tensor."""
    message = (
        f"{len(extra)} tensor(s) of the checkpoint have no place in {type(model).__name__}, "
        f"first {extra[0]!r}"
    )
    if not lacking:
        return f"{message}; is config.json of the same model?"
    return (
        f"{message}, and {len(lacking)} of its parameters have no tensor, first {lacking[0]!r}: "
        "config.json is of another model, or the names are those of other code; "
        "load it with that code and give the module"
    )


def _compute(model: nn.Module, name: str) -> torch.Tensor:
    """Return a parameter that transformers computes on loading instead of saving."""
    if (total := model.get_parameter(name).numel()) > _MOST_COMPUTED:
        raise SparsityReportError(
            f"{name!r} is never saved, and config.json gives it {total:,} values, more than the "
            f"{_MOST_COMPUTED:,} that are computed; is it of the same model?"
        )
    path, _, leaf = name.rpartition(".")
    around = [model.get_submodule(path[: m.start()]) for m in re.finditer(r"\.|$", path)]
    fill = next(m._init_weights for m in (*around[::-1], model) if hasattr(m, "_init_weights"))
    values = []
    # The result must not depend on prior values: otherwise it is random or not computed.
    for before in (0, 1):
        module = deepcopy(model.get_submodule(path)).to_empty(device="cpu")
        parameter = module.get_parameter(leaf)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(before)
            parameter.fill_(before)
            cast(Any, fill)(module)
        values.append(parameter.detach())
    if not torch.equal(*values):
        raise SparsityReportError(
            f"{name!r} is never saved, and what transformers puts there is not known before it is "
            "loaded; load it with transformers and give the module"
        )
    return values[0]


@dataclass(frozen=True, eq=False)
class Conversion:
    """A conversion rule of transformers, with the tensors it combines.

    Attributes
    ----------
    model : nn.Module
        On the meta device.
    rule : WeightConverter
    name : str
        Name of the resulting parameter, the first of several.
    sources : sequence of (str, Entry)
        Tensors on disk and the patterns of the rule that they match, in transformers' order.
    """

    model: nn.Module
    rule: Any
    name: str
    sources: Sequence[tuple[str, Entry]]

    def entries(self) -> dict[str, list[Entry]]:
        """Return the tensors that make up each parameter, in the order of its values."""
        if stack := self._stacked():
            return {self.name: stack}
        outlines = {
            id(each): torch.empty(each.shape, dtype=torch_dtype(each.values.dtype), device="meta")
            for _, each in self.sources
        }
        results = self.run(lambda entry: outlines[id(entry)])
        totals = [result.numel() for result in results.values()]
        parts = [each for _, each in self.sources]
        entries, done = {}, 0
        for (name, result), total in zip(results.items(), totals, strict=True):
            if (rows := self._rows(outlines, result)) is None:
                span = done, done + total, sum(totals)
                values = Converted(
                    total, tensor_dtype(result.dtype), parts, partial(self.values, name), span
                )
                rows = Entry(parts[0].key, tuple(result.shape), values)
            entries[name] = [rows]
            done += total
        return entries

    def run(self, read: Callable[[Entry], torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the parameters that transformers makes of the tensors, by name.

        Raises
        ------
        SparsityReportError
            The tensors do not fit each other or the model.
        """
        rule = deepcopy(self.rule)
        for pattern, entry in self.sources:
            rule.add_tensor(self.name, entry.key, pattern, read(entry))
        try:
            results = rule.convert(self.name, model=self.model, config=self.model.config)
        except Exception as error:  # each operation fails in its own way
            entry = self.sources[0][1]
            raise SparsityReportError(
                f"{entry.origin}: transformers makes {self.name!r} of {entry.key!r} on loading, "
                f"which cannot be done: {first_line(error)}; is it whole, and config.json of the "
                "same model?"
            ) from error
        # Transformers 5.0 returns errors beside them.
        results = results[0] if isinstance(results, tuple) else results
        return {name: r[0] if isinstance(r, list) else r for name, r in results.items()}

    def values(self, name: str) -> Array:
        """Return the values of a parameter, flattened."""
        return to_array(self.run(lambda entry: to_tensor(entry.read()))[name].reshape(-1))

    def _stacked(self) -> list[Entry] | None:
        """Return the tensors in the order of their values if the rule only stacks them."""
        lists: dict[str, list[Entry]] = defaultdict(list)
        for pattern, entry in self.sources:
            lists[pattern].append(entry)
        by_pattern = [lists[pattern] for pattern in self.rule.source_patterns if pattern in lists]
        match [(type(op).__name__, getattr(op, "dim", None)) for op in self.rule.operations]:
            case [("MergeModulelist", 0)] if len(by_pattern) == 1:
                return by_pattern[0]
            case [("MergeModulelist", 0), ("Concatenate", 1)] if len({*map(len, by_pattern)}) == 1:
                return [*chain(*zip(*by_pattern, strict=True))]  # of each expert gate and up
            case [("Concatenate", 0)]:
                return [*chain(*by_pattern)]
        return None

    def _rows(self, outlines: Mapping[int, torch.Tensor], result: torch.Tensor) -> Entry | None:
        """Return a parameter that is a range of rows of one tensor on disk."""
        for _, entry in self.sources:
            outline, values = outlines[id(entry)], entry.values
            if not (result.is_contiguous() and (result is outline or result._base is outline)):
                continue
            shape, start, total = tuple(result.shape), int(result.storage_offset()), result.numel()
            if isinstance(values, FileSlice | HeldSlice):
                return replace(entry, shape=shape, values=values.part(start, total))
        return None
