"""Adapters of PEFT's LoRA: which weights of a base they change, and by which low-rank product."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import read_json
from sparsity_report.weights.adapters.adapter_files import CONFIG, LEAF, base_name
from sparsity_report.weights.packed.format_detection import check_weights
from sparsity_report.weights.packed.part_slices import FLOATS
from sparsity_report.weights.sources.pickles import check_allowed, read_pickle
from sparsity_report.weights.sources.safetensors import read_header
from sparsity_report.weights.tensor_slices import Entry

# What PEFT calls the tensors of an adapter, the first where there are both.
TENSORS, _PICKLED = "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
_MATRIX = re.compile(r"(?P<module>.+)\.lora_(?:(?P<side>[AB])\.weight|embedding_(?P<table>[AB]))")
# Fields of a configuration that say nothing about values, or that are read here; any other that is
# set may change what the tensors mean.
_KNOWN = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
    "revision", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha",
    "lora_dropout", "fan_in_fan_out", "bias", "use_rslora", "modules_to_save",
    "init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern",
    "alpha_pattern", "megatron_core", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "qalora_group_size",
}  # fmt: skip
# Beginnings that leave the base as it is; others, such as PiSSA's, subtract from it.
_INITS = {"true", "false", "none", "gaussian", "eva", "orthogonal", "mica"}
# A pattern and a name come from files, and may be made to keep a search busy for ever.
_REPEAT, _CHOICE, _REPEATED_GROUP = map(re.compile, (r"[*+{]", r"[?|]", r"\)[*+{]"))
_LONGEST = 200


@dataclass(frozen=True, eq=False)
class Pair:
    """The two matrices whose product, scaled, is added to the weight of a module.

    Attributes
    ----------
    a, b : Entry
        (rank, inputs) and (outputs, rank).
    scaling : float
    embedding : bool
        The weight is a table of vectors: inputs are its rows.
    """

    a: Entry
    b: Entry
    scaling: float
    embedding: bool

    @property
    def beside(self) -> dict[str, Entry]:
        """The two, by what a model in memory calls them within the module."""
        if self.embedding:
            return {"lora_embedding_A.default": self.a, "lora_embedding_B.default": self.b}
        return {"lora_A.default.weight": self.a, "lora_B.default.weight": self.b}


@dataclass(frozen=True)
class Adapter:
    """What an adapter does to its base.

    Attributes
    ----------
    file : pathlib.Path
        That holds its tensors.
    pairs : mapping of str to Pair
        By the name of the module that they change.
    replaced : mapping of str to Entry
        Biases and whole modules that were trained, by the name of the parameter.
    turned : bool
        Whether the inputs come first in the base's matrices, if their classes do not say it.
    """

    file: Path
    pairs: Mapping[str, Pair]
    replaced: Mapping[str, Entry]
    turned: bool

    def wrong(self, why: str) -> SparsityReportError:
        """Return an error about this adapter."""
        return wrong(self.file, why)


def wrong(file: Path, why: str) -> SparsityReportError:
    """Return an error about a file of an adapter."""
    base = base_name(file.parent / CONFIG)
    return SparsityReportError(
        f"{file}: {why}; let peft's merge_and_unload() merge it into its base{base and f', {base}'}"
        ", if it can, and open what save_pretrained writes"
    )


def read_adapter(path: Path, allow_pickle: bool) -> Adapter:
    """Read the configuration and the names and shapes of an adapter.

    Raises
    ------
    SparsityReportError
        It is none, is of another kind than LoRA, or does more than add products and replace
        parameters.
    """
    folder = path if path.is_dir() else path.parent
    config = _read_config(folder / CONFIG)
    if (file := path).is_dir():
        files = (folder / name for name in (TENSORS, _PICKLED))
        if (file := next(filter(Path.is_file, files), folder)) == folder:
            raise SparsityReportError(f"{folder} has a {CONFIG} and no {TENSORS} or {_PICKLED}")
    if file.suffix == ".safetensors":
        entries = read_header(file)
    else:
        check_allowed(file, allow_pickle)
        entries = read_pickle(file)
    check_weights(*entries)
    sides: dict[str, dict[str, Entry]] = {}
    replaced: dict[str, Entry] = {}
    for entry in entries:
        name = entry.key.removeprefix(_PREFIX)
        if name == entry.key:
            raise wrong(file, f"{entry.key!r} is not understood")
        if match := _MATRIX.fullmatch(name):
            side = match["side"] or f"embedding {match['table']}"
            sides.setdefault(match["module"], {})[side] = entry
        elif LEAF.search(name):
            raise wrong(file, f"{entry.key!r} is not understood")
        elif replaced.setdefault(name.replace(".base_layer.", "."), entry) is not entry:
            raise wrong(file, f"{entry.key!r} is there twice")
    if not sides:
        raise wrong(file, "it holds no matrices of LoRA")
    pairs = {module: _pair(file, config, module, held) for module, held in sides.items()}
    return Adapter(file, pairs, replaced, bool(config.get("fan_in_fan_out")))


def _pair(file: Path, config: Mapping[str, Any], module: str, sides: Mapping[str, Entry]) -> Pair:
    """Put the two matrices of a module together, with the scaling that the configuration says."""
    embedding = "embedding A" in sides
    names = ("embedding A", "embedding B") if embedding else ("A", "B")
    if sides.keys() != {*names}:
        first = next(iter(sides.values()))
        raise wrong(file, f"{first.key!r} is there without the one matrix that it goes with")
    a, b = (sides[name] for name in names)
    rank = _told(file, config, "r", "rank_pattern", module)
    alpha = _told(file, config, "lora_alpha", "alpha_pattern", module)
    floats = {a.values.dtype, b.values.dtype} <= {*FLOATS}
    matrices = floats and len(a.shape) == len(b.shape) == 2
    if not matrices or not a.shape[0] == b.shape[1] == rank:
        raise wrong(
            file,
            f"{a.key!r} ({a.dtype}, {a.shape}) and {b.key!r} ({b.dtype}, {b.shape}) are not "
            f"matrices of the rank that {CONFIG} says, {rank}",
        )
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Pair(a, b, scaling, embedding)


def _told(
    file: Path, config: Mapping[str, Any], field: str, patterns: str, module: str
) -> int | float:
    """Return a number for a module: of the first pattern that its name ends with, as PEFT does."""
    told = config.get(field)
    for pattern, number in (config.get(patterns) or {}).items():
        if _is_involved(pattern) or max(len(pattern), len(module)) > _LONGEST:
            raise wrong(file, f"pattern {pattern!r} of {CONFIG} is too involved to be tried")
        try:
            matches = re.match(rf"(.*\.)?({pattern})$", module)
        except (re.error, RecursionError, OverflowError) as error:
            raise wrong(file, f"pattern {pattern!r} of {CONFIG} is not one: {error}") from error
        if matches:
            told = number
            break
    least = 1 if field == "r" else -1e9
    whole = int if field == "r" else int | float
    if isinstance(told, bool) or not isinstance(told, whole) or not least <= told < 1e9:
        raise wrong(file, f"{CONFIG} says {field} = {told!r} for {module!r}")
    return told


def _is_involved(pattern: str) -> bool:
    """Whether a search for a pattern may take long."""
    repeats, choices = (len(each.findall(pattern)) for each in (_REPEAT, _CHOICE))
    return repeats > 2 or choices > 12 or bool(_REPEATED_GROUP.search(pattern))


def _read_config(file: Path) -> dict[str, Any]:
    """Read the configuration of an adapter; refuse what may change the meaning of its tensors."""
    if not file.is_file():
        raise SparsityReportError(
            f"{file.parent} has no {CONFIG}: base= (--base) goes with an adapter of PEFT; a whole "
            "model is opened without"
        )
    try:
        config = read_json(file, most=limits.CONFIG_BYTES)
        kind, begin = config.get("peft_type"), str(config.get("init_lora_weights")).lower()
        patterns = [config.get(f"{name}_pattern") or {} for name in ("rank", "alpha")]
    except (OSError, ValueError, AttributeError) as error:
        raise SparsityReportError(f"{file} is not a configuration of PEFT: {error!r}") from error
    if kind != "LORA":
        raise wrong(file, f"an adapter of type {kind!r} is not LoRA and is not understood")
    if not all(isinstance(told, dict) for told in patterns):
        raise wrong(file, "rank_pattern or alpha_pattern is not an object")
    if max(map(len, patterns)) > limits.BLOCKS:
        raise wrong(file, f"rank_pattern or alpha_pattern has more than {limits.BLOCKS:,} entries")
    if begin not in _INITS:
        raise wrong(file, f"init_lora_weights = {begin!r} changes the base itself")
    if further := sorted(key for key, told in config.items() if told and key not in _KNOWN):
        raise wrong(file, f"{further[0]!r} is set, which is not understood")
    return dict(config)
