"""Checkpoints without some experts: the kept tensors of files on disk under new numbers.

The number of experts is the setting whose change shortens the parameters that hold experts and
nothing else. These parameters lead to their tensors on disk, and those to the scales beside them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from math import ceil
from typing import Any

from torch import nn

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.phrases import phrase
from sparsity_report.weights.anatomy.meta_model import parameters_for, read_config, without_head
from sparsity_report.weights.anatomy.tensor_names import Converted
from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.quantization_config import read_scheme, read_settings
from sparsity_report.weights.sources.checkpoint import CheckpointWeights, match_entries
from sparsity_report.weights.tensor_slices import Entry, FileSlice, JoinedRuns, LocalFile
from sparsity_report.weights.weights import Weights

# Number of an expert, after the name of its stack.
_NUMBER = re.compile(r"\.(0|[1-9]\d*)(?=\.|$)")
_BY_RULE = "note.uses_by_rule"

# Kept experts in ascending order, by the module that holds the stack.
Kept = Mapping[str, Sequence[int]]


def keep_experts(
    weights: Weights, kept: Kept, counts: Mapping[str, int], name: str
) -> CheckpointWeights:
    """Return a checkpoint with some experts, whose values stay in the files of the given one.

    Parameters
    ----------
    weights : Weights
        A safetensors checkpoint on this disk.
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
    if not isinstance(weights, CheckpointWeights) or weights.source != "safetensors":
        raise weights.wrong(
            "is no safetensors checkpoint, of which experts can be left out; write one with "
            "sparsity-report expand"
        )
    if weights.settings is not None:
        raise weights.wrong("lacks experts already; choose from the checkpoint that has them all")
    weights.require_runnable()
    sizes = sorted({(counts[module], len(picks)) for module, picks in kept.items()})
    (count, size), *others = sizes
    if others:
        raise weights.wrong(
            f"would keep {size:,} of {count:,} experts in one module and {others[0][1]:,} of "
            f"{others[0][0]:,} in another, but config.json has one number for all; keep equally "
            "many in each"
        )
    settings, rows = _smaller(weights, kept, count, size)
    selection = _Selection(weights, kept, count)
    for parameter, length in rows.items():
        selection.add(parameter, length)
    unread = selection.unread()
    taken = [selection.entry(e) for key, e in weights.raw.items() if key not in unread]
    entries = {entry.key: entry for entry in taken if entry is not None}
    options = replace(weights.options, name=name)
    if unread:
        note = phrase("note.experts_unread", count=len(unread), first=min(unread))
        options = replace(options, notes=(*options.notes, note))
    settings = selection.renamed_settings(settings)
    fewer = match_entries(weights.path, options, weights.source, entries, settings)
    before, after = ([n for n in w.notes if n.key == _BY_RULE] for w in (weights, fewer))
    if after and not before:
        raise weights.wrong(
            f"cannot run with {size:,} of its {count:,} experts: "
            f"{printable(str(after[0].values['error']), 200)}; keep more, or another number"
        )
    return fewer


def _smaller(
    weights: CheckpointWeights, kept: Kept, count: int, size: int
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return settings with fewer experts, and rows of the parameters that become shorter."""
    model: Any = weights.require_runnable()
    content = read_settings(weights.directory / "config.json")
    for place in _places(model.config.to_dict(), count):
        changed, config = dict(content), model.config
        holder: dict[str, Any] = changed
        for key in place[:-1]:
            inner, config = holder.get(key), getattr(config, key, None)
            holder[key] = holder = dict(inner) if isinstance(inner, dict) else {}
        aliases = getattr(config, "attribute_map", {}).items()
        names = {place[-1], *(alias for alias, name in aliases if name == place[-1])}
        holder |= dict.fromkeys((names & holder.keys()) or {place[-1]}, size)
        try:
            most = parameters_for(len(weights.raw))
            smaller, _ = read_config(weights.directory, None, most, changed)
            if smaller is not None and type(smaller) is not type(model):
                smaller = without_head(smaller, most)
        except SparsityReportError:  # another setting than the number of experts
            continue
        rows = {} if smaller is None else _shortened(model, smaller, count, size)
        if all(any(name.startswith(f"{module}.") for name in rows) for module in kept):
            _check_groups(weights, kept, count, config)
            return changed, rows
    raise weights.wrong(
        f"has {count:,} experts in a module, and no setting of its config.json changes this number "
        "alone; save it with the class of transformers for it"
    )


def _places(config: Mapping[str, Any], count: int) -> Iterator[tuple[str, ...]]:
    """Yield the keys that lead to each setting that may be the number of experts."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from ((key, *place) for place in _places(value, count))
        elif "expert" in str(key) and type(value) is int and value == count:
            yield (key,)


def _shortened(model: nn.Module, smaller: nn.Module, count: int, size: int) -> dict[str, int]:
    """Return the rows of parameters and buffers that lose experts; empty if anything else does."""
    before, after = (
        {name: tuple(tensor.shape) for name, tensor in each.state_dict().items()}
        for each in (model, smaller)
    )
    rows = {name: shape[:1] for name, shape in before.items() if shape != after.get(name)}
    is_alike = before.keys() == after.keys() and all(
        length
        and length[0] % count == 0
        and (length[0] // count * size, *before[name][1:]) == after[name]
        for name, length in rows.items()
    )
    return {name: length[0] for name, length in rows.items()} if is_alike else {}


def _check_groups(weights: Weights, kept: Kept, count: int, config: Any) -> None:
    """Refuse unequal numbers of experts in the groups to which a router limits its choice."""
    groups = getattr(config, "n_group", None) or 1
    chosen = getattr(config, "topk_group", None) or groups
    stacks = [p for module in weights.modules if module.name in kept for p in module.parameters]
    each = ceil(count * max(p.uses for p in stacks if p.experts > 1))
    for module, picks in kept.items():
        numbers = [sum(n * groups // count == group for n in picks) for group in range(groups)]
        if len({*numbers}) > 1:
            raise weights.wrong(
                f"would keep {min(numbers):,} to {max(numbers):,} experts in each of the "
                f"{groups:,} groups of {module}, which must stay equal; keep equally many in each"
            )
        if chosen * numbers[0] < each:
            raise weights.wrong(
                f"would keep {numbers[0]:,} of the experts in each group of {module}, but a token "
                f"uses {each:,} from {chosen:,} of the groups; keep more"
            )


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
        Kept experts by the tensor that holds those of all.
    """

    weights: CheckpointWeights
    kept: Kept
    count: int
    stacks: dict[str, Sequence[int]] = field(default_factory=dict)
    stacked: dict[str, Sequence[int]] = field(default_factory=dict)

    def add(self, parameter: str, rows: int) -> None:
        """Add the tensors of a parameter with a number of rows, the same for each expert."""
        sources = [*_sources(self.weights.contents.parts.get(parameter, ()))]
        names = [entry.key.split(".") for entry in sources]
        root = _shared(names)
        numbers = {name[len(root)] for name in names if len(name) > len(root)}
        if numbers == {str(number) for number in range(self.count)}:
            self._put(self.stacks, ".".join(root), parameter)
            return
        for entry in _raw(sources):
            if entry.shape[:1] == (rows,) and isinstance(entry.values, FileSlice):
                self._put(self.stacked, entry.key, parameter)
            elif entry.total != 1 and entry.key in self.weights.raw:
                raise entry.wrong(
                    f"holds {parameter} in the shape {entry.shape}, which does not begin with the "
                    "experts; write it unpacked with sparsity-report expand"
                )

    def _put(self, places: dict[str, Sequence[int]], name: str, parameter: str) -> None:
        shared = {
            module: len(_shared([module.split("."), parameter.split(".")])) for module in self.kept
        }
        nearest = [module for module, length in shared.items() if length == max(shared.values())]
        picks = self.kept[nearest[0]]
        if len(nearest) > 1 or places.setdefault(name, picks) != picks:
            raise self.weights.wrong(
                f"shares {name} among several modules with experts, so they cannot be removed "
                "from one alone; save the model with separate tensors"
            )

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
            if (picks := self.stacks.get(name[: match.start()])) is not None:
                number = int(match[1])
                if number not in picks:
                    return None
                return f"{name[: match.start(1)]}{picks.index(number)}{name[match.end() :]}"
        return name

    def entry(self, entry: Entry) -> Entry | None:
        """Return a tensor with its kept experts, under its new name; None if none is kept."""
        if (picks := self.stacked.get(entry.key)) is None:
            key = self.renamed(entry.key)
            return None if key is None else replace(entry, key=key)
        values = entry.values
        assert isinstance(values, FileSlice)
        assert isinstance(values.file, LocalFile)
        size = values.nbytes // self.count
        runs = tuple((values.offset + number * size, size) for number in picks)
        file = JoinedRuns(values.file.path, values.file.size, values.file.modified_ns, runs)
        total = values.total // self.count * len(picks)
        shape = (entry.shape[0] // self.count * len(picks), *entry.shape[1:])
        return replace(entry, shape=shape, values=replace(values, total=total, file=file, offset=0))

    def renamed_settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return settings with the new names of modules; refuse names in an unknown form."""
        words = {re.escape(name.rpartition(".")[2]) for name in self.stacks}
        numbered = re.compile(rf"({'|'.join(words)})\\?\.\d") if words else None

        def change(value: Any) -> Any:
            if isinstance(value, dict):
                names = {key: change(key) for key in value}
                return {new: change(value[key]) for key, new in names.items() if new is not None}
            if isinstance(value, list):
                changed = [(each, change(each)) for each in value]
                return [new for each, new in changed if new is not None or each is None]
            if not isinstance(value, str):
                return value
            if (new := self.renamed(value)) == value and numbered and numbered.search(value):
                raise self.weights.wrong(
                    f"names the expert {printable(value, 200)!r} in its settings in another way "
                    "than its tensors; name it as they do"
                )
            return new

        scheme = read_scheme(self.weights.directory, settings)
        if (
            scheme.file
            and change(scheme.settings) != scheme.settings
            and scheme.file.name != "config.json"
        ):
            raise self.weights.wrong(
                f"names experts in {scheme.file.name}; move these settings to config.json"
            )
        renamed: dict[str, Any] = change(settings)
        return renamed


def _shared(names: Iterable[Sequence[str]]) -> list[str]:
    """Return the words with which all names begin."""
    return [
        words[0] for words in takewhile(lambda words: len({*words}) == 1, zip(*names, strict=False))
    ]


def _sources(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the tensors that parameters are made of."""
    for entry in entries:
        if isinstance(entry.values, Converted):
            yield from (source for _, source in entry.values.conversion.sources)
        else:
            yield entry


def _raw(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the tensors in files that parameters are made of, parts of packed ones included."""
    for entry in _sources(entries):
        yield from entry.values.parts if isinstance(entry.values, Packed) else (entry,)
