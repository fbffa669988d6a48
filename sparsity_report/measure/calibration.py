"""Calibration: the inputs of every prunable matrix, and the use of every expert, on a text."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypedDict, Unpack, cast

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparsity_report.counting.cuts import InputNorms
from sparsity_report.counting.kept_experts import routed_stacks
from sparsity_report.counting.progress import Progress, with_bar
from sparsity_report.counting.pruning import Calibration
from sparsity_report.errors import SparsityReportError, check_options, printable, within_memory
from sparsity_report.files.package_data import DEMO
from sparsity_report.measure import protocols
from sparsity_report.measure.texts import Text, fingerprint, read_text
from sparsity_report.weights.anatomy.parameter_places import locate, value, walk
from sparsity_report.weights.weights import Parameter, Tokenizer, Weights

Paused = Callable[[], AbstractContextManager[None]]

aten = torch.ops.aten
# Products, and the position of the first of their two factors among the arguments.
_PRODUCTS = {
    aten.mm.default: 0, aten.bmm.default: 0, aten.mv.default: 0,
    aten.addmm.default: 1, aten.baddbmm.default: 1, aten.addmv.default: 1,
}  # fmt: skip
# Default number of windows, as in Wanda's paper.
_WINDOWS = 128


class CalibrationOptions(TypedDict, total=False):
    """Options of :func:`calibrate`."""

    tokenizer: Tokenizer | None
    windows: int | None
    window: int | None


@with_bar("calibrating", unit="window")
def calibrate(
    weights: Weights,
    text: Text | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[CalibrationOptions],
) -> Calibration:
    """Run a model once over a text and measure the inputs of its matrices and its router use.

    The model runs unpruned, so the inputs are those of the dense model. (Wanda's code prunes a
    layer and measures the next one on the output of the pruned layer.) Windows are disjoint and
    start at the beginning of the text; the rest is not read. Sums are in float64. Experts run
    twice on each token, once for the norm of their output without the gate.

    Parameters
    ----------
    weights : Weights
        From :func:`sparsity_report.load`. The model must accept token ids.
    text : str, pathlib.Path, iterable of str, dataset or 1-d tensor of token ids, optional
        See :func:`sparsity_report.perplexity`. The default is 37 KB of Python source that ships
        with the demo model and differs from the default text of perplexity.
    progress : callable, optional
        Called with windows done, windows in total and the text's name.
    **options
        ``tokenizer``: a callable, by default that of the model. ``windows``: number of windows, by
        default all of the text, at most 128 as in Wanda's paper. ``window``: tokens of each, by
        default the model's limit or 1,024, whichever is less.

    Returns
    -------
    Calibration
        Pass it to :func:`wanda`, :func:`owl` and :func:`reap` in place of the text.

    Raises
    ------
    SparsityReportError
        The text is too short; an activation is NaN or infinite; the model cannot be run on token
        ids; or a matrix is not used as the weight of a linear layer.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> calibration = sr.calibrate(sr.load(), windows=4)
    >>> calibration
    <Calibration of demo on 4 windows of 256 tokens of calibration.txt>
    >>> calibration.scales["model.decoder.layers.0.fc2.weight"].norms.shape
    (1, 512)
    """
    check_options("calibrate", options, CalibrationOptions.__annotations__)
    # The text is checked before the model is loaded.
    name, given = read_text(DEMO / "calibration.txt" if text is None else text)
    with within_memory(f"{weights.name}: calibration", "take a shorter window="):
        model = weights.module().eval()
        ids = protocols.token_ids(given, weights, options.get("tokenizer"))
        batch = _windows(weights, model, ids, options)
        watch, use = _measure(weights, model, batch, name, progress)
    scales, tokens = watch.results()
    windows, window = batch.shape
    mark, experts = fingerprint(given), use.frame()
    return Calibration(weights, scales, tokens, name, mark, windows, window, experts)


def calibrated(
    weights: Weights,
    text: Text | Calibration | None,
    progress: Progress | None,
    options: CalibrationOptions,
) -> Calibration:
    """Return a calibration of this model, made from a text if none is given."""
    if not isinstance(text, Calibration):
        return calibrate(weights, text, progress=progress, **options)
    if options:
        raise SparsityReportError(
            f"{min(options)}= does not apply to a finished calibration; pass it to calibrate()"
        )
    if text.weights is not weights:
        raise SparsityReportError(
            f"the calibration belongs to other weights, {text.weights.name}; give the same "
            "weights, or calibrate(weights, …) again"
        )
    return text


def _windows(
    weights: Weights, model: nn.Module, ids: torch.Tensor, options: CalibrationOptions
) -> torch.Tensor:
    """Return the tokens as windows, of shape (windows, tokens)."""
    limit = protocols.limit_of(model) or protocols.WINDOW
    window, windows = options.get("window"), options.get("windows")
    for option, number in (("window", window), ("windows", windows)):
        if number is not None and (type(number) is not int or number < 1):
            raise SparsityReportError(f"{option} must be a whole number from 1, not {number!r}")
    size = window or min(limit, protocols.WINDOW)
    protocols.check_range("window", size, 1, limit, f"the model's {limit:,} positions")
    available = len(ids) // size
    if available < (windows or 1):
        raise SparsityReportError(
            f"the calibration text has {len(ids):,} tokens, fewer than {windows or 1:,} windows of "
            f"{size:,}; give a longer text, or fewer and shorter windows (windows=, window=)"
        )
    used = ids[: min(available, windows or _WINDOWS) * size].reshape(-1, size)
    embeddings: Any = getattr(model, "get_input_embeddings", None)
    if embeddings and embeddings() is not None:
        protocols.check_vocabulary(used, model, "calibration text", weights.name)
    return used


def _measure(
    weights: Weights, model: nn.Module, batch: torch.Tensor, text: str, progress: Progress | None
) -> tuple[_Watch, RouterUse]:
    """Run a model over windows; return the sums over its inputs and over its experts."""
    if hasattr(model, "set_experts_implementation"):
        # One product per expert, with the tokens that are routed to it.
        cast(Any, model).set_experts_implementation("eager")
    device = next(model.parameters()).device
    places = locate(walk(model))
    watch = _Watch(weights, places)
    use = RouterUse(weights, places, watch.paused)
    for number, window in enumerate(batch):
        try:
            with torch.no_grad(), watch:
                _run(weights, model, window[None].to(device))
        except SparsityReportError:
            raise
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise SparsityReportError(
                f"{weights.name} cannot be run on a text to calibrate: {type(error).__name__}: "
                f"{printable(str(error), 200)}; use a policy without calibration"
            ) from error
        if progress:
            progress(number + 1, len(batch), text)
    return watch, use


def _run(weights: Weights, model: nn.Module, ids: torch.Tensor) -> None:
    """Run a model on one window."""
    config: Any = getattr(model, "config", None)
    known = inspect.signature(model.forward).parameters
    if "input_ids" not in known:
        if config is not None:
            raise SparsityReportError(
                f"{weights.name} is a {type(model).__name__}, which reads no token ids; use a "
                "policy without calibration"
            )
        model(ids)
        return
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in known else {}
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in known:
        options["decoder_input_ids"] = ids
    # Logits of one token are enough, unless the output head is pruned.
    if "logits_to_keep" in known and not any(
        p.prunable for m in weights.modules if m.group == "lm_head" for p in m.parameters
    ):
        options["logits_to_keep"] = 1
    model(input_ids=ids, **options)


class _Inputs:
    """Sums of squares of the inputs of a parameter, and the tokens of each of its matrices."""

    def __init__(self, parameter: Parameter, tensor: torch.Tensor) -> None:
        # The tensor is kept alive, so that no other storage gets its address.
        self.parameter, self.tensor = parameter, tensor
        self.outputs, self.width = cast(tuple[int, int], parameter.matrix)
        self.squares = torch.zeros(parameter.experts, self.width, dtype=torch.float64)
        self.tokens = [0] * parameter.experts


class _Watch(TorchDispatchMode):
    """Sums of squares of the inputs of prunable matrices, from the products that torch runs."""

    def __init__(self, weights: Weights, places: Mapping[str, tuple[nn.Module, str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name, self._is_paused = weights.name, False
        self._all = [_Inputs(p, value(*places[p.name])) for p in weights.prunable]
        self._by_storage = {each.tensor.untyped_storage().data_ptr(): each for each in self._all}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record no products meanwhile."""
        self._is_paused = True
        yield
        self._is_paused = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Record the inputs of a product with a prunable matrix."""
        if (place := _PRODUCTS.get(func)) is not None and not self._is_paused:
            left, right = args[place : place + 2]
            for matrix, other, second in ((right, left, True), (left, right, False)):
                if inputs := self._by_storage.get(matrix.untyped_storage().data_ptr()):
                    self._multiplied(inputs, matrix, other, second)
        return func(*args, **(kwargs or {}))

    def _multiplied(
        self, inputs: _Inputs, matrix: torch.Tensor, other: torch.Tensor, second: bool
    ) -> None:
        """Add the inputs of a parameter or of one of its matrices."""
        if matrix.dim() < 2 or not _is_whole(inputs, matrix, second):
            raise SparsityReportError(
                f"{self._name} multiplies by a part or the transpose of {inputs.parameter.name}, "
                "so its rows share no inputs; leave it out (blacklist=)"
            )
        x = other if second else other[..., None] if other.dim() == 1 else other.mT
        stacked, size = matrix.dim() == 3, inputs.outputs * inputs.width
        start = matrix.storage_offset() - inputs.tensor.storage_offset()
        for number, rows in enumerate(x if stacked else [x]):
            expert = (start + (number * matrix.stride(0) if stacked else 0)) // max(size, 1)
            rows = rows.reshape(-1, inputs.width)
            squares = rows.to(torch.float64).square().sum(dim=0).cpu()
            if not squares.isfinite().all():
                raise SparsityReportError(
                    f"{self._name}: the inputs of {inputs.parameter.name} hold NaN or infinity; "
                    "look for such weights, or load the model in float32"
                )
            inputs.squares[expert] += squares
            inputs.tokens[expert] += len(rows)

    def results(self) -> tuple[dict[str, InputNorms], dict[str, tuple[int, ...]]]:
        """Return the input norms, and the number of tokens of each matrix, by parameter."""
        scales, tokens = {}, {}
        for inputs in self._all:
            name = inputs.parameter.name
            if not any(inputs.tokens):
                raise SparsityReportError(
                    f"{self._name} did not use {name} as the weight of a linear layer on the "
                    "calibration text, so its inputs are unknown; leave it out (blacklist=)"
                )
            scales[name] = InputNorms(np.sqrt(inputs.squares.numpy()), inputs.outputs)
            tokens[name] = tuple(inputs.tokens)
        return scales, tokens


def _is_whole(inputs: _Inputs, matrix: torch.Tensor, second: bool) -> bool:
    """Return whether a factor is one or more full matrices of a parameter, not transposed."""
    # As inputs by outputs.
    matrix = matrix if second else matrix.mT
    due = (inputs.outputs, 1) if inputs.parameter.transposed else (1, inputs.width)
    # The stride of a single row or column is arbitrary.
    return matrix.shape[-2:] == (inputs.width, inputs.outputs) and all(
        stride == step or size == 1
        for stride, step, size in zip(matrix.stride()[-2:], due, matrix.shape[-2:], strict=True)
    )


class RouterUse:
    """Sums over the tokens that routers send to each expert, recorded while a model runs.

    The experts of transformers are modules that are called with tokens, the numbers of the experts
    of each token, and their gates. They are called once more with gates of 1, which gives the
    outputs of single experts whatever their formula is. A module whose output is not the sum of
    these outputs times the gates routes in another way and is left out.

    Parameters
    ----------
    weights : Weights
    places : mapping of str to (nn.Module, str)
        Module and attribute of each parameter of the running model.
    paused : callable
        Return a context in which products are not observed.
    """

    def __init__(
        self, weights: Weights, places: Mapping[str, tuple[nn.Module, str]], paused: Paused
    ) -> None:
        self._weights, self._paused = weights, paused
        self._sums: dict[str, torch.Tensor] = {}
        for name, stack in routed_stacks(weights).items():
            self._sums[name] = torch.zeros(4, stack.experts, dtype=torch.float64)
            module, _ = places[stack.name]
            module.register_forward_hook(partial(self._add, name), with_kwargs=True)

    def _add(self, name: str, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Add the tokens of one call."""
        known = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        x, chosen, gates = (*known.values(), None, None)[:3]
        if name not in self._sums or not _is_routing(x, chosen, gates):
            self._sums.pop(name, None)
            return
        with self._paused():
            each = module.forward(
                x.repeat_interleave(chosen.shape[1], dim=0),
                chosen.reshape(-1, 1),
                torch.ones_like(gates).reshape(-1, 1),
            ).to(torch.float64)
            summed = (each.reshape(*chosen.shape, -1) * gates[..., None]).sum(dim=1)
            if (output - summed).abs().max() > 0.05 * summed.abs().max():
                del self._sums[name]
                return
            gate, norm = gates.reshape(-1).to(torch.float64), torch.linalg.vector_norm(each, dim=1)
            rows = torch.stack([torch.ones_like(gate), gate, norm, gate * norm])
            if not rows.isfinite().all():
                raise SparsityReportError(
                    f"{self._weights.name}: the outputs of {name} hold NaN or infinity; load the "
                    "model in float32"
                )
            self._sums[name].index_add_(1, chosen.reshape(-1).cpu(), rows.cpu())

    def frame(self) -> pd.DataFrame:
        """Return one row per expert, see :class:`Calibration`."""
        blocks = {module.name: module.block for module in self._weights.modules}
        rows = []
        for name, sums in self._sums.items():
            means = torch.cat([sums[:2], sums[2:] / sums[0]])  # NaN without tokens
            rows += [(name, blocks[name], n, *row) for n, row in enumerate(means.T.tolist())]
        dtypes = {
            "module_name": "str", "block": "Int64", "expert": "int64", "tokens": "int64",
            "gate_mass": "float64", "output_norm": "Float64", "saliency": "Float64",
        }  # fmt: skip
        return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def _is_routing(x: Any, chosen: Any, gates: Any) -> bool:
    """Return whether arguments are tokens, the experts of each, and their gates."""
    if not all(isinstance(each, torch.Tensor) and each.dim() == 2 for each in (x, chosen, gates)):
        return False
    return chosen.dtype in (torch.int64, torch.int32) and chosen.shape == gates.shape
