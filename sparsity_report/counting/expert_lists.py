"""Formats of expert lists, recognized by their content.

The lists of these programs; most of them call a block a layer:

- ``vllm``: ``--riy-expert-profile`` of vLLM's pull request 37824.
- ``vllm-ascend``: ``expert_list_file`` of vllm-ascend's pull request 12525. Each line ranks the
  experts of a layer, and ``expert_prune_ratio`` says how many of them stay.
- ``llm-compressor``: ``REAPPruningModifier(report_path=…)``.
- ``llama.cpp``: profiles of ``llama-prune``, pull request 26794. They hold digests of one GGUF
  file, so they are not written.
- ``reap-mlx``: ``pruning-plan.json`` of 0xSero/reap-mlx, and checkpoints of egesabanci/reap-mlx.
- ``0xsero``: plans of 0xSero/glm-5.2-nonuniform, and ``reap_plan.json`` of 0xSero's models on the
  Hub.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sparsity_report.errors import SparsityReportError
from sparsity_report.untrusted import limits
from sparsity_report.untrusted.gates import open_file, parse_json

#: Value of ``format`` in the files of this package.
OWN = "sparsity-report/experts"
# Signs in the names of a file that is no known list, and their meaning.
_SIGNS = {
    "coreExperts": "a plan of the experts that stay on a GPU, which removes none",
    "prun|remov|drop|disable": "a list of removed experts, of a program that is not known",
    "reap|salien|score|freq|count": "scores of experts, which reap() reads by block",
}
_Data = Mapping[Any, Any]


class Layer(NamedTuple):
    """Kept or removed experts of one layer, as a list has them.

    Attributes
    ----------
    key : object
        Name of the layer, or number of the block.
    numbers : sequence of int
    is_removed : bool
    experts : int or None
        Number of experts before the removal.
    module : str
        Module around the experts, known when a list is written.
    """

    key: Any
    numbers: Sequence[int]
    is_removed: bool = False
    experts: int | None = None
    module: str = ""


@dataclass(frozen=True)
class Format:
    """A format of expert lists.

    Attributes
    ----------
    name : str
    sign : str or None
        Name in a file by which the format is recognized; none in objects by layer.
    read : callable
        Returns the layers of a file.
    write : callable or None
        Returns the objects on the lines of a file, from the name of a model and its layers.
    is_even : bool
        All layers keep equally many experts.
    """

    name: str
    sign: str | None
    read: Callable[[_Data], list[Layer]]
    write: Callable[[str, list[Layer]], list[dict[str, Any]]] | None = None
    is_even: bool = False


def read_file(path: Path) -> dict[str, Any]:
    """Return a JSON object, or the objects on the lines of a file as one.

    Raises
    ------
    ValueError
        The file is not JSON, or is longer than a text may be.
    OSError
        The file cannot be read.
    """
    with open_file(path) as file:
        text = file.read(limits.TEXT_BYTES)
    if text[:2] in {b"PK", b"\x80\x02"}:
        raise SparsityReportError(
            f"{path.name} seems to hold scores of torch; pass what torch.load(…, "
            "weights_only=True) returns to reap()"
        )
    rows = [row for line in text.splitlines() if (row := line.strip())]
    if rows and all(row[:1] + row[-1:] == b"{}" for row in rows):
        text = b"{" + b",".join(row[1:-1] for row in rows) + b"}"
    if not isinstance(data := parse_json(text, once=True, finite=True), dict):
        raise ValueError("it is not a JSON object")
    return data


def read_layers(data: _Data) -> list[Layer]:
    """Return the layers of a list in any known format.

    Examples
    --------
    >>> read_layers({"version": 1, "pruned_experts": [[0, 3], [0, 5]]})
    [Layer(key=0, numbers=[3, 5], is_removed=True, experts=None, module='')]
    >>> read_layers({"removed": {"0": [3, 5]}})
    Traceback (most recent call last):
    ValueError: it seems to be a list of removed experts, of a program that is not known
    """
    fitting = [each for each in FORMATS if each.sign in data]
    if len(fitting) > 1:
        raise ValueError(f"it has both {fitting[0].sign} and {fitting[1].sign}")
    if fitting:
        return fitting[0].read(data)
    for sign, meaning in _SIGNS.items():
        if re.search(sign, str(data)):
            raise ValueError(f"it seems to be {meaning}")
    plans = {key: each["kept"] for key, each in data.items() if "kept" in each}
    return _by_layer({**data, **plans})


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    groups = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def _rows(layers: Sequence[Layer], is_removed: bool) -> list[dict[str, Any]]:
    """Return the kept or the removed experts, one by one."""
    rows = [(o, e) for o in layers for e in range(o.experts or 0)]
    return [{"layer": o.key, "expert": e} for o, e in rows if (e in o.numbers) != is_removed]


def _by_layer(data: _Data, experts: int | None = None) -> list[Layer]:
    return [Layer(key, numbers, False, experts) for key, numbers in data.items()]


def _read_vllm(data: _Data) -> list[Layer]:
    if data.get("routing_mode") == "post_topk_drop":
        raise ValueError("its routing_mode, post_topk_drop, is not that of a smaller model")
    return [Layer(key, each, True) for key, each in _grouped(data["pruned_experts"]).items()]


def _read_kept(data: _Data) -> list[Layer]:
    """Return layers of this package or of reap-mlx, which lists the removed experts, too."""
    if isinstance(data["kept"], Mapping):
        return _by_layer(data["kept"])
    layers = []
    for name in ("kept", "pruned"):
        groups = _grouped((row["layer"], row["expert"]) for row in data.get(name, ()))
        layers += [Layer(key, numbers, name == "pruned") for key, numbers in groups.items()]
    return layers


#: Formats by which lists are recognized and written; "kept" is also a name of this package.
FORMATS = (
    Format("vllm", "pruned_experts", _read_vllm, lambda model, layers: [
        {"version": 1, "model": model}
        | {"pruned_experts": [[*row.values()] for row in _rows(layers, True)]}
    ]),
    Format("reap-mlx", "kept", _read_kept, lambda model, layers: [
        {"version": "1.0", "modelName": model}
        | {"kept": _rows(layers, False), "pruned": _rows(layers, True)}
    ], True),
    Format("vllm-ascend", None, _by_layer, lambda _, layers: [
        {str(o.key): o.numbers} for o in layers
    ], True),
    Format("llm-compressor", None, _by_layer, lambda _, layers: [
        {o.module: o.numbers for o in layers}
    ]),
    Format("0xsero", None, _by_layer, lambda _, layers: [
        {str(o.key): {"kept": o.numbers, "keep": len(o.numbers)} for o in layers}
    ]),
    Format("0xsero", "keep_maps", lambda data: _by_layer(
        data["keep_maps"]["keep_by_layer"], data["original_experts_per_layer"]
    )),
    Format("reap-mlx", "keep_by_layer", lambda data: _by_layer(data["keep_by_layer"])),
    Format("llama.cpp", "pruning", lambda data: [
        Layer(key, each["disabled_experts"], True, data["model"]["expert_count"])
        for key, each in data["pruning"]["layers"].items()
    ]),
)  # fmt: skip
