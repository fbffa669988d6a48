"""Adapters of PEFT: their settings for each module, and the low-rank pairs of LoRA."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, cast

from sparsity_report.errors import SparsityReportError, explained
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import read_json
from sparsity_report.weights.packed.format_detection import check_weights
from sparsity_report.weights.sources.model_files import (
    ADAPTER_LEAF,
    CONFIG,
    base_name,
    check_allowed,
    read_text,
)
from sparsity_report.weights.sources.model_paths import hub_id
from sparsity_report.weights.sources.safetensors import read_header
from sparsity_report.weights.tensor_slices import FLOATS, Entry
from sparsity_report.words.sentences import say

# Files of the tensors of an adapter; PEFT prefers the first.
TENSORS, _PICKLED = "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
_MATRIX = re.compile(r"(?P<module>.+)\.lora_(?:(?P<side>[AB])\.weight|embedding_(?P<table>[AB]))")
# Fields of a configuration that are read here or do not affect values; any other field that is set,
# to an empty object too, may change the meaning of the tensors.
_KNOWN = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path",
    "revision", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha",
    "lora_dropout", "fan_in_fan_out", "bias", "use_rslora", "modules_to_save",
    "init_lora_weights", "rank_pattern", "alpha_pattern", "megatron_core", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "qalora_group_size",
}  # fmt: skip
# Initializations that leave the base unchanged; others, such as PiSSA, subtract from it.
_INITS = {"true", "false", "none", "gaussian", "eva", "orthogonal", "mica"}
# Repeated groups and long repeats may exhaust memory when they are compiled. Other braces and
# nested sets have another meaning for `regex` than for `re`, which cannot stop after a time.
_UNBOUNDED = re.compile(r"\)[*+{]|\[\[|\{(?!\d{0,2}(,\d{0,2})?\})")
_SAVED = r"(^|.*\.){}($|\..*)"


def base_note(adapter: Path, base: str, folder: Path | None) -> Iterator[str]:
    """Yield a note if an adapter names a base that no name of the given base matches.

    Parameters
    ----------
    adapter : pathlib.Path
        Configuration of the adapter.
    base : str
        Name of the base.
    folder : pathlib.Path or None
        Folder of the base.
    """
    named, names = base_name(adapter), [base]
    if folder is not None:
        names += [str(folder.resolve()), read_text(folder / "config.json", "_name_or_path")]
        names += filter(None, [hub_id(folder)])
    # Copies of a model in several places share only the last part of the name.
    if named and _last_part(named) not in map(_last_part, names):
        yield say("note.other_base", named=named, base=base)


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower()


class AdapterSettings:
    """Settings of an adapter for each module, as PEFT reads them.

    Parameters
    ----------
    config : mapping
        Configuration of the adapter.
    file : pathlib.Path
        File of its tensors, for errors.

    Attributes
    ----------
    saved : tuple of str
        Ends of the names of modules that are saved whole.
    """

    def __init__(self, config: Mapping[str, Any], file: Path) -> None:
        self._config, self._file = config, file
        self._until = monotonic() + limits.PATTERN_SECONDS
        self._targets = self._names("target_modules")
        self._excluded = self._names("exclude_modules")
        saved, targets = self._names("modules_to_save"), config.get("target_modules")
        if not targets or str(targets).lower() == "all-linear":
            raise wrong(file, f"target_modules = {targets!r} does not name the adapted modules")
        if isinstance(saved, str):
            raise wrong(file, f"modules_to_save = {saved!r} is not a list")
        self.saved = tuple(saved)

    def adapts(self, module: str) -> bool:
        """Return whether PEFT adapts a module of this name."""
        is_saved = any(self._match(_SAVED.format(name), module) for name in self.saved)
        is_left_out = is_saved or self._has(self._excluded, module)
        return not is_left_out and self._has(self._targets, module)

    @property
    def transposed(self) -> bool:
        """True if inputs are the first dimension of adapted matrices."""
        return bool(self._config.get("fan_in_fan_out"))

    def rank(self, module: str) -> int:
        """Return the rank of the matrices of a module."""
        return int(self._number("r", "rank_pattern", module, int))

    def scaling(self, module: str) -> float:
        """Return the factor of the product of the matrices of a module."""
        rank = self.rank(module)
        alpha = self._number("lora_alpha", "alpha_pattern", module, int | float)
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def _number(self, field: str, patterns: str, module: str, kind: Any) -> int | float:
        """Return a number for a module: that of the first pattern that ends its name."""
        numbers = (self._config.get(patterns) or {}).items()
        matching = (n for pattern, n in numbers if self._match(rf"(.*\.)?({pattern})$", module))
        value: Any = next(matching, self._config.get(field))
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not is_number or not (1 if kind is int else -1e9) <= value < 1e9:
            raise wrong(self._file, f"{CONFIG} gives {field} = {value!r} for {module!r}")
        return cast(float, value)

    def _match(self, pattern: str, text: str, full: bool = False) -> bool:
        """Return whether a pattern matches the start of a text, or all of it."""
        import regex

        subject = f"pattern {pattern!r} of {CONFIG}"
        seconds = self._until - monotonic()
        if _UNBOUNDED.search(pattern) or seconds < 0:
            raise wrong(self._file, f"{subject} is too complex")
        try:
            re.compile(pattern)
            search = regex.fullmatch if full else regex.match
            return search(pattern, text, timeout=seconds) is not None
        except TimeoutError as error:
            raise wrong(self._file, f"{subject} is too complex") from error
        except (re.error, regex.error, RecursionError, OverflowError) as error:
            raise wrong(self._file, f"{subject} is not a regular expression: {error}") from error

    def _has(self, names: str | Mapping[str, None], module: str) -> bool:
        """Return whether names contain a module or the end of its name, or a pattern fits it."""
        if isinstance(names, str):
            return self._match(names, module, full=True)
        return any(module[dot.end() :] in names for dot in re.finditer(r"^|\.", module))

    def _names(self, field: str) -> Any:
        """Return a field that is empty, a pattern or a list of names."""
        value = self._config.get(field)
        if value is None or isinstance(value, str):
            return value or {}
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise wrong(self._file, f"{field} = {value!r} is neither a pattern nor a list of names")
        return dict.fromkeys(value)


@dataclass(frozen=True, eq=False)
class Pair:
    """The two matrices whose product, scaled, is added to the weight of a module.

    Attributes
    ----------
    a, b : Entry
        (rank, inputs) and (outputs, rank).
    scaling : float
    embedding : bool
        True if the weight is an embedding.
    transposed : bool
        True if rows of the weight are inputs; for a base of a known class, it decides.
    """

    a: Entry
    b: Entry
    scaling: float
    embedding: bool
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight."""
        outputs, inputs = self.b.shape[0], self.a.shape[1]
        return (inputs, outputs) if self.transposed else (outputs, inputs)


@dataclass(frozen=True)
class Adapter:
    """The changes of an adapter to its base.

    Attributes
    ----------
    file : pathlib.Path
        File of its tensors.
    pairs : mapping of str to Pair
        Pairs by the name of the module that they change.
    replaced : mapping of str to Entry
        Trained biases and modules by the name of the parameter.
    settings : AdapterSettings
    """

    file: Path
    pairs: Mapping[str, Pair]
    replaced: Mapping[str, Entry]
    settings: AdapterSettings

    def wrong(self, reason: str) -> SparsityReportError:
        """Return an error about this adapter."""
        return wrong(self.file, reason)


def wrong(file: Path, reason: str) -> SparsityReportError:
    """Return an error about a file of an adapter."""
    base = base_name(file.parent / CONFIG)
    return SparsityReportError(
        f"{file}: {reason}; merge it into its base with peft's "
        f"merge_and_unload(){base and f', {base}'}, if it can, and open what save_pretrained writes"
    )


def read_adapter(path: Path, allow_pickle: bool) -> Adapter:
    """Read the configuration and the names and shapes of an adapter.

    Raises
    ------
    SparsityReportError
        The path is not a LoRA adapter, or the adapter does more than add products and replace
        parameters.
    """
    folder = path if path.is_dir() else path.parent
    config = _read_config(folder / CONFIG)
    if (file := path).is_dir():
        files = (folder / name for name in (TENSORS, _PICKLED))
        if (file := next(filter(Path.is_file, files), folder)) == folder:
            raise SparsityReportError(
                f"{folder} has a {CONFIG} and no {TENSORS} or {_PICKLED}; "
                "download the adapter again"
            )
    if file.suffix == ".safetensors":
        entries = read_header(file)
    else:
        check_allowed(file, allow_pickle)
        from sparsity_report.weights.sources.pickles import read_pickle

        entries = read_pickle(file)
    check_weights(*entries)
    settings = AdapterSettings(config, file)
    sides: dict[str, dict[str, Entry]] = {}
    replaced: dict[str, Entry] = {}
    for entry in entries:
        name = entry.key.removeprefix(_PREFIX)
        matrix = _MATRIX.fullmatch(name)
        if name == entry.key or (ADAPTER_LEAF.search(name) and not matrix):
            raise wrong(file, f"{entry.key!r} is not supported")
        module = matrix["module"] if matrix else name.rpartition(".")[0]
        # PEFT moves the parameters of an adapted module into its base layer.
        is_inside = matrix is not None or module.endswith(".base_layer")
        module = module.removesuffix(".base_layer")
        if settings.adapts(module) is not is_inside:
            # PEFT ignores the tensor.
            raise wrong(file, f"{entry.key!r} does not fit the modules that {CONFIG} adapts")
        if matrix:
            side = matrix["side"] or f"embedding {matrix['table']}"
            sides.setdefault(module, {})[side] = entry
        else:
            replaced[name.replace(".base_layer.", ".")] = entry
    if not sides:
        raise wrong(file, f"it holds no matrices of LoRA for modules that {CONFIG} names")
    pairs = {module: _pair(file, settings, module, tensors) for module, tensors in sides.items()}
    return Adapter(file, pairs, replaced, settings)


def _pair(file: Path, settings: AdapterSettings, module: str, sides: Mapping[str, Entry]) -> Pair:
    """Return the two matrices of a module, with the scaling of the configuration."""
    embedding = "embedding A" in sides
    names = ("embedding A", "embedding B") if embedding else ("A", "B")
    if sides.keys() != {*names}:
        first = next(iter(sides.values()))
        raise wrong(file, f"{first.key!r} lacks the other matrix of its pair")
    a, b = (sides[name] for name in names)
    rank, scaling = settings.rank(module), settings.scaling(module)
    is_float = {a.values.dtype, b.values.dtype} <= {*FLOATS}
    are_matrices = is_float and len(a.shape) == len(b.shape) == 2
    if not are_matrices or not a.shape[0] == b.shape[1] == rank:
        both = f"{a.key!r} ({a.dtype}, {a.shape}) and {b.key!r} ({b.dtype}, {b.shape})"
        raise wrong(file, f"{both} are not matrices of rank {rank}, which {CONFIG} gives")
    return Pair(a, b, scaling, embedding, embedding or settings.transposed)


def _read_config(file: Path) -> dict[str, Any]:
    """Read the configuration of an adapter; refuse fields that may change its meaning."""
    if not file.is_file():
        raise SparsityReportError(
            f"{file.parent} has no {CONFIG}: base= (--base) goes with an adapter of PEFT; open a "
            "whole model without it"
        )
    with explained(lambda e: f"{file} is not a configuration of PEFT: {e}; download it again"):
        config = read_json(file, most=limits.CONFIG_BYTES)
        peft_type = config.get("peft_type")
        initialization = str(config.get("init_lora_weights")).lower()
        patterns = [config.get(f"{name}_pattern") or {} for name in ("rank", "alpha")]
    if peft_type != "LORA":
        raise wrong(file, f"an adapter of type {peft_type!r} is not LoRA and is not supported")
    if not all(isinstance(pattern, dict) for pattern in patterns):
        raise wrong(file, "rank_pattern or alpha_pattern is not an object")
    if max(map(len, patterns)) > limits.BLOCKS:
        raise wrong(file, f"rank_pattern or alpha_pattern has more than {limits.BLOCKS:,} entries")
    if initialization not in _INITS:
        raise wrong(file, f"init_lora_weights = {initialization!r} changes the base itself")
    unset = {key for key, value in config.items() if value is None or value is False}
    if config.get("layers_to_transform") is False:  # no flag: PEFT then adapts no layer
        unset.remove("layers_to_transform")
    if others := sorted(config.keys() - _KNOWN - unset):
        raise wrong(file, f"{others[0]!r} is set, which is not supported")
    return config
