"""Uses of each parameter, traced in runs of a model without values.

Tensors that depend on a parameter stay on the meta device, so a model of any size runs in the time
of its Python code. Integers are real, so that control flow works. An integer that would depend on
values is made up: a router sends tokens to its experts in turn, so that all receive equally many;
`all` is true, and everything else is 0 or false.

Torch's ``FlopCounterMode`` on meta tensors counts by module only and stops at the first integer
that a model reads from a tensor. In a trial with 424 classes it ran 180, and was complete for 142.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain, product
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparsity_report.sparse.linear_csr import LinearCSR
from sparsity_report.weights.anatomy.meta_model import without_logs
from sparsity_report.weights.anatomy.parameter_places import Place, as_csr, computed_by
from sparsity_report.words.sentences import say

# Tokens of the shortest text. Models that pad texts to blocks use 64 tokens mostly, at most 512.
_LENGTHS = (8, 64, 512)
_MOST_TOKENS = 1024
_POSITIONS = {
    "max_position_embeddings", "n_positions", "max_target_positions", "max_source_positions",
    "max_seq_len", "seq_length", "n_ctx", "max_sequence_length",
}  # fmt: skip
# Not token types, which are as many as labels.
_VOCABULARY = re.compile("(?<!type_)vocab_size|^codebook_size$")
_CODEBOOKS = {"num_codebooks", "num_channels"}
_CHANNELS = {"num_channels", "in_channels", "num_input_channels", "in_chans"}
_FEATURES = {
    "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim", "n_mels",
}  # fmt: skip
# Samples of a sound, and frames of a spectrogram.
_SAMPLES, _FRAMES = 16_000, (3000, 512, 64)

aten = torch.ops.aten
# Matrix products, whose factors are the last two tensors.
_PRODUCTS = {
    aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default, aten.addmm.default,
    aten.baddbmm.default, aten.addmv.default, aten.addbmm.default,
}  # fmt: skip
# Operations that select by size.
_CHOICES = {aten.topk.default, aten.sort.default, aten.argmax.default, aten.max.dim}
# Operations whose result size depends on values.
_COUNTED = {aten.nonzero.default, aten.masked_select.default, aten.repeat_interleave.Tensor}
_ITEM = aten._local_scalar_dense.default
_CHECKS = {aten.all, aten._is_all_true}
_LOOKUPS = {aten.embedding.default, aten._embedding_bag.default}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
_RESHAPED = {aten._unsafe_view.default, aten.view.default, aten.unsqueeze.default}
_JOINED = {aten.cat.default, aten.stack.default}
# Operations that use only the shape of a tensor.
_SHAPED = re.compile(r"_like$|^new_")
# Largest float tensor with real values, and largest tensor of integers: half a GB of int64.
_SMALL, _LARGEST = 2**20, 2**26
# Size below which real operands need no check.
_FEW = 2**12
# Operations of all runs: per parameter, constant, and the maximum of about half a minute.
# Among published models, DBRX needs most: 100,000.
_PER_PARAMETER, _BESIDES, _MOST = 400, 1_000, 250_000

# Forward arguments for a sequence length.
_Sample = Callable[[int], dict[str, torch.Tensor]]


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


def trace_uses(places: Sequence[Place]) -> Behavior:
    """Return the behavior of a model from runs on the meta device.

    Operations that grow with the length of a text are per token, constant ones per sequence, and
    quadratic ones are attention scores.

    Parameters
    ----------
    places : sequence of Place
        From :func:`walk` of a model on any device, which is neither changed nor computed with.

    Raises
    ------
    Exception
        Any error of a model that cannot run this way; many need special inputs.
    """
    with without_logs():
        twin = _Twin(places)
        failure: Exception = NotImplementedError("none of its inputs can be generated")
        for number, (is_text, sample) in enumerate(_samples(twin.model)):
            try:
                run = twin.run(sample(twin.length(_LENGTHS[0])))
            except Exception as error:  # a model may fail anywhere on unsuitable inputs
                failure = failure if number else error
            else:
                return _over_lengths(twin, sample, run) if is_text else _at_once(twin, sample, run)
        raise failure


class _Twin:
    """A copy of a model without values that can be run."""

    def __init__(self, places: Sequence[Place]) -> None:
        original = places[0].module
        twins: dict[int, Any] = {
            id(tensor): _emptied(tensor)
            for module in original.modules()
            for tensor in (*module.parameters(False), *module.buffers(False), *computed_by(module))
        }
        for place in places:
            for leaf, tensor in place.tensors.items():
                if csr := as_csr(place.module, leaf):
                    weight = torch.empty(csr.weight_shape, device="meta")
                    is_turned = isinstance(csr, LinearCSR) and csr.transposed
                    twins[id(tensor)] = nn.Parameter(weight.T if is_turned else weight, False)
                    if isinstance(csr, LinearCSR):
                        twins[id(csr)] = linear = nn.Linear(1, 1, False, "meta")
                        linear.weight = twins[id(tensor)]
                        linear.register_parameter("bias", twins.get(id(csr.bias)))
        self.model = copy.deepcopy(original, twins).eval()
        self.running: list[nn.Module] = []
        for place in places:
            module = twins[id(place.module)]
            for leaf, tensor in place.tensors.items():
                if as_csr(place.module, leaf) and leaf in module._modules:  # experts
                    del module._modules[leaf]
                    module.register_parameter(leaf, twins[id(tensor)])
            module.register_forward_pre_hook(lambda module, _: self.running.append(module))
            module.register_forward_hook(self._leave, always_call=True)
        self.places = {id(twins[id(place.module)]): place for place in places}
        tensors = {id(tensor) for place in places for tensor in place.tensors.values()}
        self.parameters: dict[int, torch.Tensor] = {name: twins[name] for name in tensors}
        self.names = {id(tensor): name for name, tensor in self.parameters.items()}
        most = min(_PER_PARAMETER * len(self.parameters) + _BESIDES, _MOST)
        self.operations = iter(range(most))
        self.config = getattr(self.model, "config", None)
        self.vocabularies = {*_numbers(self.config, _VOCABULARY.search)}
        # Experts all at once, as there may be thousands.
        for kind, implementation in (("attn", "eager"), ("experts", "batched_mm")):
            if hasattr(self.model, setting := f"set_{kind}_implementation"):
                getattr(self.model, setting)(implementation)

    def _leave(self, *_: object) -> None:
        self.running.pop()

    def length(self, wanted: int) -> int:
        """Return a length that the model has positions for three times."""
        limit = min((n for n in _numbers(self.config, _POSITIONS.__contains__) if n), default=2**20)
        # Some count positions from the number after that of padding.
        return max(min(wanted, (limit - 2) // 3), 1)

    def run(self, inputs: Mapping[str, torch.Tensor]) -> _Run:
        """Run the model; return the record of the run."""
        known = inspect.signature(self.model.forward).parameters
        options = {n: v for n, v in (("use_cache", False), ("return_dict", True)) if n in known}
        self.running.clear()
        run = _Run(self)
        with torch.no_grad(), run:
            out = self.model(**inputs, **options)
        outputs = out if isinstance(out, Mapping) else {}
        for tensor in _tensors([value for name, value in outputs.items() if "logits" in name]):
            run.heads |= run.trace(tensor).last
        return run


def _emptied(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without values; in float32, as not all products exist in other dtypes."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    empty = torch.empty(tensor.shape, dtype=dtype, device="meta")
    return nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty


def _over_lengths(twin: _Twin, sample: _Sample, first: _Run) -> Behavior:
    """Return the behavior from texts of three lengths, the first of which has run."""
    for number, length in enumerate(map(twin.length, _LENGTHS)):
        runs = [twin.run(sample(length)) if number else first]
        if choices := runs[0].choices:
            # Every expert receives equally many tokens.
            length = math.lcm(*choices) * -(-length // math.lcm(*choices))
            runs = [twin.run(sample(length))]
        if length > _MOST_TOKENS:
            break
        runs += [twin.run(sample(times * length)) for times in (2, 3)]
        usages = _usages(twin, runs, length)
        if runs[-1].is_guessed:
            raise ValueError("how much it computes depends on the values of its parameters")
        if any(usage.shape and usage.per_token for usage in usages.values()):
            return Behavior(usages, _attention(twin, runs, length))
    raise ValueError("its FLOPs are not linear in the sequence length")


def _at_once(twin: _Twin, sample: _Sample, run: _Run) -> Behavior:
    """Return the behavior from inputs without a length: a token is a row of the first product."""
    if not run.rows or run.is_guessed:
        raise ValueError("it has no matrix product, or its FLOPs depend on values")
    (name, read), *_ = sample(0).items()
    note = say("note.rows_are_tokens", rows=run.rows, input=name, shape=str(tuple(read.shape)))
    return Behavior(_usages(twin, [run], run.rows), None, (note,))


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


def _usages(twin: _Twin, runs: Sequence[_Run], length: int) -> dict[str, Usage]:
    """Return the use of each parameter; empty if growth is not polynomial."""
    usages: dict[str, Usage] = {}
    outside: set[int] = set()
    for module, place in twin.places.items():
        for leaf, tensor in place.tensors.items():
            name = id(tensor)
            keys = [(name, module)] if name in outside else [(name, module), (name, 0)]
            outside.add(name)  # uses outside of all holders count for the first
            uses = [[run.uses[key] for key in keys if key in run.uses] for run in runs]
            flops = max(2 * twin.parameters[name].numel(), 1)
            constant, slope, curved = _grown([sum(u.flops for u in run) for run in uses], flops)
            if curved or slope < 0 or constant < 0:
                return {}
            multiplied = next((use for use in uses[-1] if use.shape), _Use())
            readers = {reader for use in uses[-1] for reader in use.readers}
            is_head = name in runs[0].heads and multiplied.shape
            usages[place.full_name(leaf)] = Usage(
                Fraction(slope, flops * length) if multiplied.shape else Fraction(bool(readers)),
                Fraction(constant, flops),
                multiplied.shape,
                multiplied.turned,
                touched=bool(readers),
                read_outside=(name, 0) in runs[-1].uses,
                convolved="aten.convolution.default" in readers,
                raw=leaf != "weight",
                role="router"
                if name in runs[-1].routers
                else "lm_head" * bool(is_head and is_head[0] in twin.vocabularies),
            )
    return usages


def _attention(twin: _Twin, runs: Sequence[_Run], length: int) -> dict[int | None, int] | None:
    """Return the sums of query and value widths over attention layers, by window.

    Scores and weighted values of one token cost ``2·(query width + value width)`` FLOPs for
    every attended position: all, or those of a sliding window.
    """
    # Models that swap modules attend differently to longer texts.
    if any(id(module) not in twin.places for module in twin.model.modules()):
        return None
    widths: dict[int | None, Fraction] = defaultdict(Fraction)
    for module in set().union(*(run.scores for run in runs)):
        _, _, curved = _grown([run.scores[module] for run in runs])
        if curved < 0:  # it attends to parts of a text, so these lengths do not generalize
            return None
        if curved:
            widths[_window(twin, module)] += Fraction(curved, 4 * length**2)
    return {window: round(width) for window, width in widths.items()} or None


def _window(twin: _Twin, module: int) -> int | None:
    """Return the window of an attention layer, from the layer or the config."""
    place = twin.places[module]
    # A config may hold settings unknown to its model, and lists per layer.
    config: Any = twin.config
    alike = hasattr(type(config), "sliding_window") and not getattr(config, "layer_types", None)
    holders: tuple[Any, ...] = (place.module, *place.around[:1], *([config] if alike else []))
    if not getattr(place.module, "is_sliding", True):
        return None
    windows = (layer.sliding_window for layer in holders if hasattr(layer, "sliding_window"))
    is_local = getattr(place.module, "attention_type", "") == "local"  # GPT-Neo
    window = getattr(config, "window_size", None) if is_local else next(windows, None)
    return window if isinstance(window, int) and window > 0 else None


def _samples(model: nn.Module) -> Iterator[tuple[bool, _Sample]]:
    """Yield inputs that a model may accept, plain text first, and whether each is a text."""
    config, takes = getattr(model, "config", None), inspect.signature(model.forward).parameters
    others = [
        {name: torch.empty(shape, device="meta")}
        for name, shapes in _other_shapes(config).items()
        if name in takes
        for shape in shapes
    ]
    names = [name for name in ("input_ids", "decoder_input_ids", "bbox") if name in takes]
    first = 1 + (getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in takes)
    texts = [names[:first], names, names[1:first] or names] if names else []
    # One token per position, or several codes of sound in the last text.
    shapes: list[tuple[int | None, ...]] = [(1, None)]
    for codes in sorted(set(_numbers(config, _CODEBOOKS.__contains__))):
        shapes += (codes, None), (1, None, codes), (1, None, codes + 1)
    for besides, text, shape in product(({}, *others), texts, shapes):
        yield True, partial(_read, config, text, shape, besides)
    for besides in others:
        yield False, partial(_read, config, (), (), besides)


def _read(
    config: Any,
    names: Sequence[str],
    shape: Sequence[int | None],
    besides: dict[str, torch.Tensor],
    length: int,
) -> dict[str, torch.Tensor]:
    """Return texts of plain tokens with the model's end token, and the other inputs."""
    special = set(_numbers(config, lambda name: name.endswith(("token_id", "token_index"))))
    plain = next(number for number in range(len(special) + 1) if number not in special)
    given = dict(besides)
    for name in names:
        given[name] = torch.full((1, length), plain)
        if isinstance(end := getattr(config, "eos_token_id", None), int) and end >= 0:
            given[name][:, -1] = end
        if name == "bbox":  # position of each token on a page
            given[name] = torch.zeros(1, length, 4)
    if names and shape != (1, None):
        given[names[-1]] = torch.full([size or length for size in shape], plain)
    return given


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


def _other_shapes(config: Any) -> dict[str, list[tuple[int, ...]]]:
    """Return shapes of inputs other than text: images, audio, spectrograms, patches."""

    def number(names: set[str], default: int) -> int:
        return next(_numbers(config, names.__contains__), default)

    image = number(_CHANNELS, 3), *[number({"image_size"}, 224)] * 2
    features = number(_FEATURES, 80)
    positions = [2 * n for n in _numbers(config, "max_source_positions".__eq__)]
    sizes = [(frames, features) for frames in (*positions, *_FRAMES)]
    return {
        "pixel_values": [(1, *image)],
        "input_values": [(1, _SAMPLES)],
        "input_features": [(1, *turned) for size in sizes for turned in (size, size[::-1])],
        "inputs": [(1, _SAMPLES)],
        # Row, column and pixels of each patch.
        "flattened_patches": [(1, 64, number({"patch_embed_hidden_size"}, 768) + 2)],
    }


class _Trace(NamedTuple):
    """Origin of the values of a tensor."""

    weights: frozenset[int] = frozenset()  # parameters it was computed from, without the input
    reads_input: bool = False
    last: frozenset[int] = frozenset()  # matrices whose products it holds, scaled, sliced or joined


_CONSTANT = _Trace()


@dataclass
class _Use:
    """Use of a parameter in a run: FLOPs, outputs and inputs of the last product, readers."""

    flops: int = 0
    shape: tuple[int, int] | None = None
    turned: bool = False
    readers: set[str] = field(default_factory=set)


class _Run(TorchDispatchMode):
    """Record of a run, by ids of parameters and modules."""

    def __init__(self, twin: _Twin) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # By parameter and the module that holds it, 0 for other modules.
        self.uses: dict[tuple[int, int], _Use] = defaultdict(_Use)
        # FLOPs of products of two input-dependent tensors, by module.
        self.scores: Counter[int] = Counter()
        # Parameters whose products were selected by size, and numbers of candidates.
        self.routers: set[int] = set()
        self.choices: set[int] = set()
        # Parameters whose products are the output logits.
        self.heads: frozenset[int] = frozenset()
        # Rows of the first product.
        self.rows = 0
        # True if the amount of computation depends on values other than by selection.
        self.is_guessed = False
        self._twin = twin
        self._outputs: dict[int, int] = {}
        # Written storages by address, kept alive so that no other gets the address.
        self._written: dict[int, tuple[torch.UntypedStorage, _Trace]] = {}

    def trace(self, tensor: torch.Tensor) -> _Trace:
        """Return the origin of a tensor."""
        if (name := self._twin.names.get(id(tensor))) is not None:
            return _Trace(frozenset([name]))
        trace: _Trace = getattr(tensor, "_trace", _CONSTANT)
        if not trace.reads_input and self._written:
            trace = self._written.get(tensor.untyped_storage()._cdata, (None, trace))[1]
        return trace

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Trace one operation."""
        kwargs = kwargs or {}
        if next(self._twin.operations, None) is None:
            raise ValueError("it takes far more operations than models of so many parameters do")
        tensors = _tensors([*args, *kwargs.values()])
        if not any(
            t.is_meta or (self._written and t.untyped_storage()._cdata in self._written)
            for t in tensors
        ):
            counted = func in _COUNTED or (func is _ITEM and tensors[0].dtype != torch.bool)
            self.is_guessed |= counted and any(hasattr(tensor, "_made_up") for tensor in tensors)
            return _known(func, args, kwargs, tensors)
        for tensor in tensors:
            if (name := self._twin.names.get(id(tensor))) is not None:
                self._use(name).readers.add(str(func))
        if func is _ITEM:
            return torch.zeros((), dtype=tensors[0].dtype).item()
        traces = [self.trace(tensor) for tensor in tensors]
        trace = _followed(func, traces)
        if func in _PRODUCTS:
            trace = self._multiplied(tensors[-2:], traces[-2:])
        elif func in _CHOICES and (dim := _dimension(func, args)) is not None:
            # A selection among all outputs of a matrix.
            among = args[0].shape[dim]
            if routers := {name for name in traces[0].last if self._outputs.get(name) == among}:
                self.routers |= routers
                self.choices.add(among)
        out = _unknown(func, args, kwargs)
        for result in _tensors(out):
            if trace is not _CONSTANT and id(result) not in self._twin.names:
                result._trace = trace  # type: ignore[attr-defined]
                if func is aten.clone.default:
                    result._copied = [*zip(args[0].shape, args[0].stride(), strict=True)]  # type: ignore[attr-defined]
                elif func in _RESHAPED and hasattr(args[0], "_copied"):
                    result._copied = args[0]._copied  # type: ignore[attr-defined]
                if any(result is tensor for tensor in tensors):
                    storage = result.untyped_storage()
                    self._written[storage._cdata] = (storage, trace)
        return out

    def _use(self, name: int) -> _Use:
        """Return the record of a parameter for the running module that holds it, or for none."""
        running = self._twin.running[-1] if self._twin.running else None
        tensor = self._twin.parameters[name]
        holds = running is not None and any(tensor is p for p in running._parameters.values())
        return self.uses[name, id(running) if holds else 0]

    def _multiplied(self, factors: Sequence[torch.Tensor], traces: Sequence[_Trace]) -> _Trace:
        """Record a product with a parameter, or of two input-dependent tensors."""
        left, right = (factor if factor.dim() > 1 else factor[:, None] for factor in factors)
        left = left if factors[0].dim() > 1 else left.mT
        rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
        batch = math.prod(left.shape[:-2])
        flops = 2 * batch * rows * inner * columns
        # If both factors come from parameters, as with learned positions, the second is the matrix.
        second = bool(traces[1].weights)
        weights = traces[second].weights
        if not weights:
            if all(trace.reads_input for trace in traces) and self._twin.running:
                self.scores[id(self._twin.running[-1])] += flops
            return _Trace(reads_input=any(trace.reads_input for trace in traces))
        factor, outputs, others = (right, columns, rows) if second else (left, rows, columns)
        self.rows = self.rows or batch * others
        parameters = [(name, self._twin.parameters[name]) for name in weights]
        largest = max(parameter.numel() for _, parameter in parameters)
        sizes = {
            name: parameter.numel()
            for name, parameter in parameters
            if parameter.numel() == largest or min(parameter.shape[-2:], default=1) > 1
        }  # scales have no share in the product
        for name, size in sizes.items():
            use = self._use(name)
            use.flops += round(Fraction(flops * size, sum(sizes.values())))
            use.shape = outputs, inner
            use.turned = _is_turned(factor, outputs, second)
            self._outputs[name] = outputs
        return _Trace(reads_input=True, last=weights)


def _is_turned(factor: torch.Tensor, outputs: int, second: bool) -> bool:
    """Return whether the values of one input are adjacent in memory, as in ``Conv1D``.

    ``Linear`` multiplies by the transpose of its weight. For a copy made by einsum, the strides of
    the original decide: the last sizes are outputs if it is the second factor.
    """
    strides = getattr(factor, "_copied", None)
    if strides is None:
        return factor.stride(-1 if second else -2) < factor.stride(-2 if second else -1)
    sizes, step = [size for size in strides if size[0] > 1], -1 if second else 1
    product, among = 1, []
    for size, stride in sizes[::step]:
        if product < outputs:
            product *= size
            among.append(stride)
    return 1 in among


def _followed(func: Any, traces: Sequence[_Trace]) -> _Trace:
    """Return the origin of the result of an operation."""
    name = func.overloadpacket.__name__
    if _SHAPED.search(name):
        return _CONSTANT
    if func in _LOOKUPS:
        return _Trace(reads_input=True)
    dependent = [trace for trace in traces if trace.reads_input]
    if not dependent:
        return _Trace(frozenset().union(*(trace.weights for trace in traces)))
    # A norm mixes the values of a row: its result is no longer the product.
    kept = (len(dependent) == 1 or func in _JOINED) and "norm" not in name
    last = frozenset().union(*(trace.last for trace in dependent)) if kept else frozenset()
    return _Trace(reads_input=True, last=last)


def _known(func: Any, args: Any, kwargs: dict[str, Any], tensors: Sequence[torch.Tensor]) -> Any:
    """Compute an operation on known values on the CPU, even if the model asks for meta."""
    numbers = [abs(n) for n in _flat(args) if isinstance(n, int | float)]
    if max((*numbers, *(tensor.numel() for tensor in tensors)), default=0) > _FEW:
        planned = None
        with suppress(Exception):  # operations without a known size, or wrong ones
            planned = _without_values(func, args, kwargs, moved=not tensors)
        _check_largest(planned)
    out = func(*args, **kwargs)
    if any(hasattr(tensor, "_made_up") for tensor in tensors):
        if func.overloadpacket in _CHECKS:
            return torch.ones_like(out)
        for result in _tensors(out):
            result._made_up = True  # type: ignore[attr-defined]
    on_meta = isinstance(out, torch.Tensor) and out.is_meta
    if on_meta and out.numel() <= (_LARGEST if _is_whole(out) else _SMALL):
        return func(*args, **{**kwargs, "device": torch.device("cpu")})
    return out


def _unknown(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Return the result of an operation on unknown values: integers made up, others on meta."""
    if func in _INDEXED:  # boolean masks
        parts = [
            index.nonzero(as_tuple=True)
            if index is not None and index.dtype in {torch.bool, torch.uint8}
            else (index,)
            for index in args[1]
        ]
        args = (args[0], [*chain(*parts)], *args[2:])
    if _SHAPED.search(func.overloadpacket.__name__) and args[0].numel() <= _SMALL:
        return func(*args, **{**kwargs, "device": torch.device("cpu")})
    out = _without_values(func, args, kwargs)
    for value, argument in zip(args, func._schema.arguments, strict=False):
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        if is_written and isinstance(value, torch.Tensor) and not value.is_meta:
            return value
    if func in _CHOICES:
        return _in_turn(args[0].shape, _dimension(func, args), out)
    return _each(_real, out)


def _without_values(func: Any, args: Any, kwargs: dict[str, Any], moved: bool = False) -> Any:
    """Return the result of an operation on the meta device."""
    if moved or "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("meta")}
    return func(*_each(_meta, args), **kwargs)


def _dimension(func: Any, args: Any) -> int | None:
    """Return the dimension of a selection, or None."""
    place, dim = next((n, a) for n, a in enumerate(func._schema.arguments) if a.name == "dim")
    dim = args[place] if len(args) > place else dim.default_value
    return dim if args[0].dim() else None


def _in_turn(shape: Sequence[int], dim: int | None, out: Any) -> Any:
    """Return consecutive choices for each row, continuing from the row before."""
    values, indices = (None, out) if isinstance(out, torch.Tensor) else out
    keeps, place = dim is not None and indices.dim() == len(shape), dim or 0
    moved = indices.movedim(place, -1) if keeps else indices
    chosen = torch.arange(moved.numel()).reshape(moved.shape)
    chosen %= 1 if dim is None else max(shape[dim], 1)
    chosen = chosen.movedim(-1, place) if keeps else chosen
    return chosen if values is None else type(out)((values, chosen))


def _tensors(values: Any) -> list[torch.Tensor]:
    """Return the tensors in arguments or results, lists included."""
    return [value for value in _flat(values) if isinstance(value, torch.Tensor)]


def _flat(values: Any) -> Iterator[Any]:
    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _each(change: Callable[[torch.Tensor], Any], values: Any) -> Any:
    """Return arguments or results with a function applied to each tensor."""
    if isinstance(values, torch.Tensor):
        return change(values)
    return [_each(change, v) for v in values] if isinstance(values, list | tuple) else values


def _check_largest(values: Any) -> None:
    """Refuse sizes that only an extreme number in a configuration causes."""
    for tensor in _tensors(values):
        if tensor.numel() > _LARGEST:
            raise ValueError(f"it needs a tensor of {tensor.numel():,} values")


def _is_whole(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_meta else torch.empty_like(tensor, device="meta")


def _real(tensor: torch.Tensor) -> torch.Tensor:
    """Return made-up integers in place of unknown ones."""
    if not (tensor.is_meta and _is_whole(tensor)):
        return tensor
    _check_largest(tensor)
    made_up = torch.zeros(tensor.shape, dtype=tensor.dtype)
    made_up._made_up = True  # type: ignore[attr-defined]
    return made_up
