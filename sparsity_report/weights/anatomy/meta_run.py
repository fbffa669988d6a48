"""Use counts of parameters from runs of a model on the meta device, see :mod:`tracer`.

Sample inputs come from the config and the signature of the model's forward: texts of three lengths.
Operations that grow with the length are per token, constant ones per sequence, and quadratic ones
are attention scores.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import count, product
from typing import Any

import torch
from torch import nn

from sparsity_report.sparse.linear_csr import LinearCSR
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.processor_time import within_processor_time
from sparsity_report.weights.anatomy.parameter_places import Place, as_csr, computed_by
from sparsity_report.weights.anatomy.tracer import Record, Use, Watch, budget, tensors_among
from sparsity_report.words.sentences import say

# Tokens of the shortest text. Models that pad texts to blocks use 64 tokens mostly, at most 512.
_LENGTHS = (8, 64, 512)
_MOST_TOKENS = 1024
# Number of structures whose behavior is cached: variants of a model share one.
_REMEMBERED = 64
_CHANGED = ("forward", "_forward_hooks", "_forward_pre_hooks")
_observed: dict[Hashable, Behavior] = {}
# Settings about origin and storage, which do not affect behavior.
_OF_THE_FILES = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}
# Module attributes about construction and mode.
_HISTORY = {"training", "name_or_path", "_is_hf_initialized"}
_POSITIONS = (
    "max_position_embeddings", "n_positions", "max_target_positions", "max_source_positions",
    "max_seq_len", "seq_length", "n_ctx", "max_sequence_length",
)  # fmt: skip
# Not token types, which are as many as labels.
_VOCABULARY = re.compile("(?<!type_)vocab_size|^codebook_size$")

# Forward arguments for a sequence length.
Sample = Callable[[int], dict[str, torch.Tensor]]
# Shape of a text, None for its length.
_Shape = Sequence[int | None]

_CODEBOOKS = ("num_codebooks", "num_channels")
_OTHERS = ("pixel_values", "input_values", "input_features", "inputs", "flattened_patches")
# Default spectrogram frames, audio samples, and pixels per side.
_FRAMES = (3000, 512, 64)
_SAMPLES = 16_000
_SIDE = 224
_CHANNELS = ("num_channels", "in_channels", "num_input_channels", "in_chans")
_FEATURES = (
    "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim", "n_mels",
)  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """Use of a parameter by the module that holds it.

    Attributes
    ----------
    per_token, per_sequence : Fraction
        Multiplications by the parameter per token, and further ones per sequence. A parameter that
        is read but is no factor of a product counts once.
    shape : tuple of int or None
        Outputs and inputs of the matrix; None for parameters that are no factor of a product.
    turned : bool
        Whether the input dimension comes first in memory.
    touched : bool
        Whether it is read at all.
    read_outside : bool
        Whether a module that does not hold it reads it.
    convolved : bool
        Whether it is the kernel of a convolution.
    raw : bool
        Whether it is a raw parameter rather than the ``weight`` of a layer.
    role : str
        ``"lm_head"`` if its product is the output logits, ``"router"`` if its product is selected
        by size.
    """

    per_token: Fraction
    per_sequence: Fraction
    shape: tuple[int, int] | None = None
    turned: bool = False
    touched: bool = True
    read_outside: bool = False
    convolved: bool = False
    raw: bool = False
    role: str = ""

    @property
    def is_vector(self) -> bool:
        """True for a single row or column that is no layer."""
        return self.shape is not None and self.raw and 1 in self.shape


@dataclass(frozen=True)
class Behavior:
    """Traced behavior of a model.

    Attributes
    ----------
    usages : mapping of str to Usage
        By the full name of each parameter; a tied one has several.
    attention : dict of int or None to int, or None
        Query and value widths, summed over the layers, by the window they see.
    notes : tuple of str
        Facts for a careful reader.
    """

    usages: Mapping[str, Usage]
    attention: dict[int | None, int] | None
    notes: tuple[str, ...] = ()


def observe(places: Sequence[Place]) -> Behavior:
    """Return the behavior of a model from a run on the meta device.

    Parameters
    ----------
    places : sequence of Place
        From :func:`walk` of a model on any device, which is neither changed nor computed with.

    Raises
    ------
    Exception
        Any error of a model that cannot run this way; many need special inputs.
    """
    structure = _structure(places)
    if structure in _observed:
        return _observed[structure]
    with _quiet(), within_processor_time(limits.SECONDS) as add_seconds:
        twin = _Twin(places, add_seconds)
        twin.set_("attn", "eager")
        # Experts all at once, as there may be thousands.
        twin.set_("experts", "batched_mm")
        is_text, sample, run = _readable(twin)
        behavior = _over_lengths(twin, sample, run) if is_text else _at_once(twin, sample)
    if structure:
        while len(_observed) >= _REMEMBERED:
            del _observed[next(iter(_observed))]
        _observed[structure] = behavior
    return behavior


def _structure(places: Sequence[Place]) -> Hashable:
    """Return what decides how a model runs: its config, modules and ties; None if hooks do, too."""
    modules = [place.module for place in places]
    if any(vars(module).get(name) for module in modules for name in _CHANGED):
        return None
    config: Any = getattr(modules[0], "config", None)
    settings = _of_the_model(config.to_dict()) if hasattr(config, "to_dict") else {}
    numbers: Mapping[int, int] = defaultdict(count().__next__)
    kinds = [(p.path, p.times, _type(p.module), _settings(p.module)) for p in places]
    tensors = [
        (place.path, leaf, place.shape(leaf), numbers[id(tensor)])
        for place in places
        for leaf, tensor in place.tensors.items()
    ]
    return (json.dumps(settings, sort_keys=True, default=str), *kinds, *tensors)


def _type(module: nn.Module) -> type[nn.Module]:
    """Return what a module is, of a CSR layer what it stands for, whose twin is run."""
    is_linear = isinstance(module, LinearCSR) and not module.transposed
    return nn.Linear if is_linear else type(module)


def _of_the_model(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _of_the_model(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in _OF_THE_FILES
    }


def _settings(module: nn.Module) -> tuple[tuple[str, object], ...]:
    """Return the plain values that a module has been given, which it may go by."""
    plain = (bool, int, float, str, type(None))
    settings = vars(module).items()
    return tuple(sorted((k, v) for k, v in settings if isinstance(v, plain) and k not in _HISTORY))


class _Twin:
    """A copy of a model without values that can be run."""

    def __init__(self, places: Sequence[Place], add_seconds: Callable[[float], None]) -> None:
        original = places[0].module
        twins: dict[int, Any] = {
            id(tensor): _emptied(tensor)
            for module in original.modules()
            for tensor in (*module.parameters(False), *module.buffers(False), *computed_by(module))
        }
        self.model = copy.deepcopy(original, twins).eval()
        self.parameters: dict[int, torch.Tensor] = {}
        for place in places:
            for leaf, tensor in place.tensors.items():
                if csr := as_csr(place.module, leaf):
                    dense = nn.Parameter(torch.empty(csr.weight_shape, device="meta"), False)
                    twins[id(tensor)] = dense
                    twins[id(place.module)] = _dense_again_(twins[id(place.module)], leaf, dense)
                self.parameters[id(tensor)] = twins[id(tensor)]
        for place in places:
            for name, child in place.module._modules.items():
                if isinstance(child, LinearCSR):
                    twins[id(place.module)]._modules[name] = twins[id(child)]
        self.places = {id(twins[id(place.module)]): place for place in places}
        self.operations = budget(len(self.parameters), add_seconds)
        self.config = getattr(self.model, "config", None)
        self.vocabularies = {*_numbers(self.config, _VOCABULARY.search)}

    def length(self, wanted: int) -> int:
        """Return a length that the model has positions for three times."""
        limit = min((n for n in _numbers(self.config, _POSITIONS.__contains__) if n), default=2**20)
        # Some count positions from the number after that of padding.
        return max(min(wanted, (limit - 2) // 3), 1)

    def set_(self, kind: str, implementation: str) -> None:
        """Choose one of transformers' implementations of a part, where there are several."""
        if hasattr(self.model, setting := f"set_{kind}_implementation"):
            getattr(self.model, setting)(implementation)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> Record:
        """Run the model; return what happened."""
        known = inspect.signature(self.model.forward).parameters
        options = {n: v for n, v in (("use_cache", False), ("return_dict", True)) if n in known}
        watch = Watch(self.parameters, self.operations)
        with watch.watching():
            out = self.model(**inputs, **options)
        outputs = out if isinstance(out, Mapping) else {}
        logits = [value for name, value in outputs.items() if "logits" in name]
        for tensor in tensors_among(logits):
            watch.record.heads |= watch.trace(tensor).last
        return watch.record


def _emptied(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without values; in float32, as not all products exist in other dtypes."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    empty = torch.empty(tensor.shape, dtype=dtype, device="meta")
    return nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty


def _dense_again_(module: nn.Module, leaf: str, dense: nn.Parameter) -> nn.Module:
    """Return a module that holds a parameter dense instead of as CSR."""
    if isinstance(module, LinearCSR):
        linear = nn.Linear(module.in_features, module.out_features, False, "meta")
        linear.weight = dense
        linear.register_parameter("bias", module.bias)
        if module.transposed:
            linear.forward = partial(_turned_linear, linear)  # type: ignore[method-assign]
        return linear
    del module._modules[leaf]
    module.register_parameter(leaf, dense)
    return module


def _turned_linear(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(x, linear.weight.T, linear.bias)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a model has to say about how it runs; answer what it asks of the meta device."""
    from transformers.utils import logging

    verbosity, asked = logging.get_verbosity(), torch.is_autocast_enabled
    logging.set_verbosity(logging.CRITICAL)
    # Transformers 5.0 asks for it on any device, torch knows nothing of this one.
    torch.is_autocast_enabled = lambda *device: device != ("meta",) and asked(*device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        torch.is_autocast_enabled = asked


def _readable(twin: _Twin) -> tuple[bool, Sample, Record]:
    """Return the first sample input that the model accepts, with its record."""
    failure: Exception = NotImplementedError("it reads nothing that can be made up")
    for number, (is_text, sample) in enumerate(_samples(twin.model)):
        try:
            run = twin.run(sample(twin.length(_LENGTHS[0])))
        except Exception as error:  # a model may fail anywhere on unsuitable inputs
            failure = failure if number else error
        else:
            return is_text, sample, run
    raise failure


def _over_lengths(twin: _Twin, sample: Sample, first: Record) -> Behavior:
    """Return the behavior from texts of three lengths, the first of which has run."""
    for number, length in enumerate(map(twin.length, _LENGTHS)):
        records = [twin.run(sample(length)) if number else first]
        if choices := records[0].choices:
            # Every expert receives equally many tokens.
            length = math.lcm(*choices) * -(-length // math.lcm(*choices))
            records = [twin.run(sample(length))]
        if length > _MOST_TOKENS:
            break
        records += [twin.run(sample(times * length)) for times in (2, 3)]
        usages = _usages(twin, records, length)
        if records[-1].guessed:
            raise ValueError("how much it computes depends on the values of its parameters")
        if usages and any(usage.shape and usage.per_token for usage in usages.values()):
            return Behavior(usages, _attention(twin, records, length))
    raise ValueError("its products do not grow evenly with the length of a text")


def _at_once(twin: _Twin, sample: Sample) -> Behavior:
    """Return the behavior from inputs without a length: a token is a row of the first product."""
    record = twin.run(sample(0))
    if not record.rows or record.guessed:
        raise ValueError("it multiplies by no matrix, or values say how often")
    (name, read), *_ = sample(0).items()
    shape = str(tuple(read.shape))
    note = say("note.rows_are_tokens", rows=record.rows, input=name, shape=shape)
    return Behavior(_usages(twin, [record], record.rows), None, (note,))


def _grown(flops: Sequence[int], once: int = 0) -> tuple[int, int, int]:
    """Return the polynomial through values at one, two and three times a length.

    The quadratic coefficient is doubled. A single value counts as linear beyond `once`.

    Examples
    --------
    >>> _grown([6, 11, 18])  # 3 + 2·x + x²
    (3, 2, 2)
    """
    if len(flops) == 1:
        return (0, flops[0], 0) if flops[0] > once else (flops[0], 0, 0)
    one, two, three = flops
    curved = three - 2 * two + one
    slope = two - one - 3 * curved // 2
    return one - slope - curved // 2, slope, curved


def _usages(twin: _Twin, records: Sequence[Record], length: int) -> dict[str, Usage]:
    """Return the use of each parameter; empty if growth is not polynomial."""
    usages: dict[str, Usage] = {}
    outside: set[int] = set()
    for module, place in twin.places.items():
        for leaf, tensor in place.tensors.items():
            name, parameter = id(tensor), twin.parameters[id(tensor)]
            keys = [(name, module)] if name in outside else [(name, module), (name, 0)]
            outside.add(name)  # uses outside of all holders count for the first
            uses = [[record.uses[key] for key in keys if key in record.uses] for record in records]
            flops = max(2 * parameter.numel(), 1)
            constant, slope, curved = _grown([sum(u.flops for u in run) for run in uses], flops)
            if curved or slope < 0 or constant < 0:
                return {}
            multiplied = next((use for use in uses[-1] if use.shape), Use())
            readers = {reader for use in uses[-1] for reader in use.readers}
            read = Fraction(bool(readers))
            of_words = multiplied.shape and multiplied.shape[0] in twin.vocabularies
            usages[place.full_name(leaf)] = Usage(
                per_token=Fraction(slope, flops * length) if multiplied.shape else read,
                per_sequence=Fraction(constant, flops),
                shape=multiplied.shape,
                turned=multiplied.turned,
                touched=bool(readers),
                read_outside=(name, 0) in records[-1].uses,
                convolved="aten.convolution.default" in readers,
                raw=leaf != "weight",
                role="router"
                if name in records[-1].routers
                else "lm_head" * bool(name in records[0].heads and of_words),
            )
    return usages


def _attention(twin: _Twin, records: Sequence[Record], length: int) -> dict[int | None, int] | None:
    """Return the sums of query and value widths over attention layers, by window.

    Scores and weighted values of one token cost ``2·(query width + value width)`` FLOPs for
    every attended position: all, or those of a sliding window.
    """
    widths: dict[int | None, Fraction] = {}
    # Models that swap modules attend differently to longer texts.
    if not all(record.scores.keys() <= twin.places.keys() for record in records):
        return None
    for module in set().union(*(record.scores for record in records)):
        _, _, curved = _grown([record.scores[module] for record in records])
        if curved < 0:  # it attends to parts of a text, so these lengths do not generalize
            return None
        if curved:
            window = _window(twin, module)
            width = Fraction(curved, 4 * length**2)
            widths[window] = widths.get(window, Fraction(0)) + width
    return {window: round(width) for window, width in widths.items()} or None


def _window(twin: _Twin, module: int) -> int | None:
    """Return the window of an attention layer, from the layer or the config."""
    place = twin.places[module]
    # A config may hold settings unknown to its model, and lists per layer.
    config: Any = twin.config
    alike = hasattr(type(config), "sliding_window") and not getattr(config, "layer_types", None)
    tellers: tuple[Any, ...] = (place.module, *place.around[:1], *([config] if alike else []))
    windows = (layer.sliding_window for layer in tellers if hasattr(layer, "sliding_window"))
    window = next(windows, None)
    return window if isinstance(window, int) and window > 0 else None


def _samples(model: nn.Module) -> Iterator[tuple[bool, Sample]]:
    """Yield inputs that a model may accept, plain text first.

    Yields
    ------
    bool
        Whether the input is text of any length.
    Sample
    """
    config, takes = getattr(model, "config", None), inspect.signature(model.forward).parameters
    others = [dict([other]) for name in _OTHERS if name in takes for other in _other(config, name)]
    for besides, names, shape in product(({}, *others), _texts(config, takes), _shapes(config)):
        yield True, partial(_read, config, names, shape, besides)
    for besides in others:
        yield False, partial(_read, config, (), (), besides)


def _texts(config: Any, takes: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Yield the names of text arguments, also in combinations."""
    names = tuple(name for name in ("input_ids", "decoder_input_ids", "bbox") if name in takes)
    first = 1 + (getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in takes)
    if names:
        yield names[:first]
        yield names
        yield names[1:first] or names


def _numbers(config: Any, wanted: Callable[[str], object]) -> Iterator[int]:
    """Yield the integers that a config or a nested config has under some names."""
    settings = config.to_dict() if hasattr(config, "to_dict") else config
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if isinstance(value, list | tuple) and value and wanted(str(name)):
            value = value[-1]
        if isinstance(value, dict):
            yield from _numbers(value, wanted)
        elif isinstance(value, int) and not isinstance(value, bool) and wanted(str(name)):
            yield value


def _read(
    config: Any, names: Sequence[str], shape: _Shape, besides: dict[str, torch.Tensor], length: int
) -> dict[str, torch.Tensor]:
    """Return texts of plain tokens with the model's end token, and the other inputs."""
    special = set(_numbers(config, lambda name: name.endswith(("token_id", "token_index"))))
    plain = next(number for number in range(len(special) + 1) if number not in special)
    given = dict(besides)
    for name in names:
        given[name] = torch.full((1, length), plain)
        if name == "bbox":  # position of each token on a page
            given[name] = torch.zeros(1, length, 4)
            continue
        if isinstance(end := getattr(config, "eos_token_id", None), int) and end >= 0:
            given[name][:, -1] = end
    if names and shape:
        # Sound as text: the last is of several codes at a time.
        sizes = [length if size is None else size for size in shape]
        given[names[-1]] = torch.full(sizes, plain)
    return given


def _shapes(config: Any) -> Iterator[_Shape]:
    """Yield shapes of texts: one token or several codes per position."""
    yield ()
    for codes in sorted(set(_numbers(config, _CODEBOOKS.__contains__))):
        yield from ((codes, None), (1, None, codes), (1, None, codes + 1))


def _other(config: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield inputs other than text: images, audio, spectrograms."""
    if name == "pixel_values":
        side = next(_numbers(config, "image_size".__eq__), _SIDE)
        channels = next(_numbers(config, _CHANNELS.__contains__), 3)
        yield name, torch.empty(1, channels, side, side, device="meta")
        yield name, torch.empty(1, 1, channels, side, side, device="meta")
    elif name == "flattened_patches":  # row, column and pixels of each patch
        width = next(_numbers(config, "patch_embed_hidden_size".__eq__), 768)
        yield name, torch.zeros(1, 1, 1).expand(1, 64, width + 2)
    elif name in {"input_values", "inputs"}:
        yield name, torch.empty(1, _SAMPLES, device="meta")
    else:
        features = next(_numbers(config, _FEATURES.__contains__), 80)
        positions = [2 * n for n in _numbers(config, "max_source_positions".__eq__)]
        for frames in (*positions, *_FRAMES):
            yield name, torch.empty(1, frames, features, device="meta")
            yield name, torch.empty(1, features, frames, device="meta")
