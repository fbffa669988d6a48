"""What this package says of a model, held against oracles that know nothing of its rules.

Each check returns None, or one sentence of what is wrong.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from helpers import command, counted
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

import sparsity_report as sr
from zoo.products import Names, Products
from zoo.reads import inputs

LENGTHS = (8, 16, 24)
NAN = float("nan")
SPARSITY = 0.6
DERIVED = (
    "total", "nonzero", "prunable_nonzero", "flops_per_token", "useful_flops_per_token",
    "flops_per_sequence", "stored_bytes", "active_total",
)  # fmt: skip
_ATTENTION_OR_MLP = re.compile(r"(.*_)?(attn|attention|mlp|ffn|feed_forward|experts?)")


@dataclass
class Subject:
    """A model under test, and what is learned of it once."""

    model: PreTrainedModel

    @cached_property
    def weights(self) -> Any:
        """As this package opens it."""
        return sr.load(self.model)

    @cached_property
    def study(self) -> Any:
        """Dense."""
        return sr.compare(sr.dense(self.weights))

    @cached_property
    def pruning(self) -> Any:
        """By global magnitude."""
        return sr.global_magnitude(self.weights, SPARSITY)

    @cached_property
    def runs(self) -> tuple[Products, ...]:
        """What was multiplied at each of the lengths, attention and experts eager."""
        model = copy.deepcopy(self.model).requires_grad_(False)
        for choose in ("set_attn_implementation", "set_experts_implementation"):
            if hasattr(model, choose):
                getattr(model, choose)("eager")
        return tuple(_products(model, length) for length in LENGTHS)

    @cached_property
    def per_token(self) -> dict[Names, tuple[float, float]]:
        """FLOPs by module, per token and besides, once; NaN where they are no straight line.

        Tied modules are multiplied as one, and so are the experts of a block.
        """
        counts: list[Counter[Names]] = []
        for run in self.runs:
            counts.append(Counter())
            for names, flops in run.of_parameters.items():
                counts[-1][frozenset(map(_module, names))] += flops
        lines = {}
        for names in set().union(*counts):
            first, middle, last = (count[names] for count in counts)
            slope = (last - first) / (LENGTHS[2] - LENGTHS[0])
            straight = first + last == 2 * middle
            lines[names] = (slope, first - slope * LENGTHS[0]) if straight else (NAN, NAN)
        return lines


def _products(model: PreTrainedModel, length: int) -> Products:
    """Run a model and see its products; all that torch counts is among them."""
    products = Products(model)
    with FlopCounterMode(display=False) as counter, products:
        output = forward(model, length)
    products.outputs = [t for t in tree_leaves(dict(output)) if isinstance(t, torch.Tensor)]
    kinds = (products.of_parameters, products.convolutions)
    flops = products.of_activations + sum(sum(kind.values()) for kind in kinds)
    assert counter.get_total_flops() == flops
    return products


def forward(model: PreTrainedModel, length: int) -> Any:
    """Run a model on plain tokens."""
    torch.manual_seed(0)
    with torch.no_grad():
        return model(**inputs(model, length))


def reads_text(model: PreTrainedModel, alone: bool = False) -> bool:
    """Whether a model reads tokens of a text, or nothing else."""
    tokens, given = {"input_ids", "decoder_input_ids"}, set(inputs(model, 1)) - {"use_cache"}
    return given <= tokens if alone else not tokens.isdisjoint(given)


def applies(letter: str, model: PreTrainedModel) -> bool:
    """Whether a check says something of a model: FLOPs per token are those of a text."""
    return letter not in "ds" or reads_text(model)


def parameters_are_counted(subject: Subject) -> str | None:
    """(a) Totals and nonzeros are those of unique storages."""
    storages, totals = _storages(subject.model), subject.study.totals.loc[0]
    real = sum(p.untyped_storage().nbytes() // p.element_size() for p in storages)
    nonzero = sum(int(p.count_nonzero()) for p in storages)
    if (totals["total"], totals["nonzero"]) == (real, nonzero):
        return None
    said = f"{totals['total']:,} parameters, {totals['nonzero']:,} not zero"
    return f"{said}, where there are {real:,} and {nonzero:,}"


def _storages(model: PreTrainedModel) -> list[torch.Tensor]:
    """Return a parameter of each storage."""
    return [*{p.untyped_storage().data_ptr(): p for p in model.parameters()}.values()]


def a_saved_folder_is_the_same(subject: Subject) -> str | None:
    """(b) The folder that `save_pretrained` writes says what the module says."""
    with tempfile.TemporaryDirectory() as folder:
        saved_at = Path(folder) / subject.weights.architecture
        subject.model.save_pretrained(saved_at)
        saved = sr.load(saved_at)
        study = sr.compare(sr.dense(saved, name=subject.study.variants.loc[0, "variant"]))
        for what in ("layers", "totals"):
            ours, theirs = (counted(getattr(s, what)) for s in (subject.study, study))
            if not ours.equals(theirs):
                return f"{what} of the saved folder differ: {_difference(ours, theirs)}"
        prints = [s.variants.loc[0, "fingerprint"] for s in (subject.study, study)]
        if prints[0] != prints[1]:
            return "the saved folder has another fingerprint"
    return None


def _difference(one: Any, other: Any) -> str:
    if list(one.index) != list(other.index):
        return f"{len(one)} rows against {len(other)}"
    columns = [name for name in one if not one[name].equals(other[name])]
    rows = one.index[one[columns[0]].astype(str) != other[columns[0]].astype(str)]
    named = "module_name" in one and not rows.empty
    return ", ".join(columns) + (f" of {one.loc[rows[0], 'module_name']}" if named else "")


def commands_agree(subject: Subject) -> str | None:
    """(g) `count`, `check` and `run` agree on a saved folder, with the module and its storages."""
    totals = subject.study.totals.loc[0]
    names = ("total", "prunable_total", "active_total")
    said = {"module": tuple(int(totals[name]) for name in names)}
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        out = Path(folder, "out")
        outcomes = {
            "count": command("count", folder, "--json"),
            "check": command("check", folder, "--no-nan", "--json"),
            "run": command("run", folder, "--as-is", "--write", "study", "--out", out),
        }
        # A broken rule is no error: some models are made with values that are not finite.
        if failed := [name for name, outcome in outcomes.items() if outcome.returncode > 1]:
            return f"{failed[0]}: {outcomes[failed[0]].stderr.strip()}"
        counts, checked = (json.loads(outcomes[name].stdout) for name in ("count", "check"))
        study = sr.read_study(out / "study.json")
    said["run"] = tuple(int(study.totals.loc[0, name]) for name in names)
    experts = counts["experts"]
    active = experts["active_parameters"] if experts else said["run"][2]
    said["count"] = (counts["parameters"], said["run"][1], active)
    said["check"] = (checked["parameters"], checked["prunable"], active)
    groups = {group: row["parameters"] for group, row in counts["groups"].items()}
    rows = study.groups[study.groups["total"] > 0]
    if groups != dict(zip(rows["group"], rows["total"], strict=True)):
        return f"groups of count and run differ: {groups}"
    if len({*said.values()}) > 1:
        return f"total, prunable and active weights differ: {said}"
    return None


def nothing_is_unclassified(subject: Subject) -> str | None:
    """(c) Every module has a group."""
    layers = subject.study.layers
    other = layers[layers["group"] == "other"]
    if other.empty:
        return None
    share = other["total"].sum() / layers["total"].sum()
    return f"{share:.1%} unclassified: {_some(other['module_name'])}"


def flops_are_those_of_a_run(subject: Subject) -> str | None:
    """(d) FLOPs of each module, per token and per sequence, are those of runs at three lengths."""
    layers = subject.study.layers.set_index("module_name")
    groups = _joined(subject.per_token)
    ours: dict[str, Counter[str]] = {"token": Counter(), "sequence": Counter()}
    paths = {name for name, _ in subject.model.named_modules()}
    for name, row in layers.iterrows():
        # A matrix that is not used as the others of its module has a row of its own.
        module = name if name in paths else name.rpartition(".")[0]
        key = groups.get(_many(module), _many(module))
        ours["token"][key] += row["flops_per_token"]
        ours["sequence"][key] += row["flops_per_sequence"]
    real: dict[str, Counter[str]] = {"token": Counter(), "sequence": Counter()}
    for names, (slope, once) in subject.per_token.items():
        key = groups[min(names)]
        real["token"][key] += slope
        real["sequence"][key] += once
    wrong, idle = [], []
    # What a picture or a sound costs besides is no part of a text.
    for per in ("token", "sequence") if reads_text(subject.model, alone=True) else ("token",):
        for key in sorted({*ours[per], *real[per]}):
            if ours[per][key] == real[per][key]:
                continue
            if key in groups:
                figures = f"{ours[per][key]:,} per {per}, a run {_number(real[per][key])}"
                wrong.append(f"{key}: {figures}")
            else:
                idle.append(key)
    said = [_some(wrong, "; ")] if wrong else []
    if idle:
        said.append(f"charged and never run: {_some(idle)}")
    return "; ".join(said) or None


def scores_are_those_of_a_run(subject: Subject) -> str | None:
    """(s) Products of attention grow with the square of the length as the widths say."""
    first, middle, last = (run.of_activations for run in subject.runs)
    step = LENGTHS[1] - LENGTHS[0]
    square = (last - 2 * middle + first) / (2 * step**2)
    widths = subject.weights.attention_widths
    if widths is None:
        said = f"attention: not told, a run {square:,.0f} FLOPs per pair of positions"
        return said if square else None
    width = sum(w for window, w in widths.items() if window is None or window >= LENGTHS[-1])
    if 2 * width == square:
        return None
    return f"attention: {2 * width:,} FLOPs per pair of positions, a run {square:,.0f}"


def what_is_pruned_should_be(subject: Subject) -> str | None:
    """(e) No head, router, norm, tied tensor, bias or table; the other matrices of all blocks."""
    model, run = subject.model, subject.runs[0]
    prunable = {p.name for p in subject.weights.prunable}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    spared = {name: why for why, names in _spared(model, run, parameters).items() for name in names}
    wrong = [f"{name} ({spared[name]}) is prunable" for name in sorted(prunable & spared.keys())]
    multiplied = {name for names in run.of_parameters for name in names}
    for name in sorted(multiplied - prunable - spared.keys()):
        one_gate = min(parameters[name].shape) == 1  # decides on a whole expert, as a router does
        if not one_gate and any(map(_ATTENTION_OR_MLP.fullmatch, name.split("."))):
            wrong.append(f"{name} is not prunable")
    return None if not wrong else _some(wrong, "; ")


def _spared(
    model: PreTrainedModel, run: Products, parameters: dict[str, torch.Tensor]
) -> dict[str, set[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in parameters.items():
        names.setdefault(parameter.data_ptr(), []).append(name)
    head = model.get_output_embeddings()
    vocabulary = getattr(model.config.get_text_config(decoder=True), "vocab_size", None)
    heads = {names[p.data_ptr()][0] for p in head.parameters()} if head is not None else set()
    for output in run.outputs:
        if output.shape[-1:] == (vocabulary,):
            heads |= run.makers.get(output, frozenset())
    return {
        "a vector": {name for name, p in parameters.items() if p.ndim < 2},
        "tied": {name for same in names.values() if len(same) > 1 for name in same},
        "an embedding": {
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Embedding)
        },
        "an embedding in a product": {name for name in parameters if name.endswith("_embed")},
        "a router": run.chosen | _inside(model, "Router"),
        "a head": heads,
        "outside of blocks": parameters.keys() - _in_lists(model),
    }


def _in_lists(model: PreTrainedModel) -> set[str]:
    """Name the parameters of modules that are made of others and belong to a list of torch."""
    lists = (torch.nn.ModuleList, torch.nn.Sequential)
    blocks = [
        f"{name}.{number}."
        for name, each in model.named_modules()
        if isinstance(each, lists)
        for number, block in each.named_children()
        if any(True for _ in block.children())
    ]
    names = (name for name, _ in model.named_parameters(remove_duplicate=False))
    return {name for name in names if name.startswith((*blocks,))}


def _inside(model: PreTrainedModel, word: str) -> set[str]:
    """Name the parameters of modules of classes that have a word in their name."""
    return {
        f"{name}.{leaf}"
        for name, module in model.named_modules()
        if word in type(module).__name__
        for leaf, _ in module.named_parameters()
    }


def variants_run(subject: Subject) -> str | None:
    """(f) Masked and CSR can be built, run alike, and count as derived."""
    variants = [sr.masked(subject.pruning), sr.csr(subject.pruning)]
    models = [variant.module() for variant in variants]
    derived = [sr.compare(variant).totals.loc[0] for variant in variants]
    # This package traces a module that it counts, which takes long; torch counts that of Masked.
    nonzero = sum(int(p.count_nonzero()) for p in _storages(models[0]))
    real = [{"nonzero": nonzero}, sr.compare(sr.dense(models[1])).totals.loc[0][[*DERIVED]]]
    for variant, ours, theirs in zip(variants, derived, real, strict=True):
        for name, count in theirs.items():
            if ours[name] != count:
                return f"{variant.name}: {name} {ours[name]:,} derived, {count:,} counted"
    try:
        forward(subject.model, LENGTHS[0])
    except Exception:
        return None  # the model itself cannot be run here
    outputs = [_floats(forward(model, LENGTHS[0])) for model in models]
    for one, other in zip(*outputs, strict=True):
        close = 1e-4 * float(one.abs().nan_to_num().max()) if one.numel() else 0.0
        if not torch.allclose(one, other, rtol=1e-4, atol=close, equal_nan=True):
            return f"CSR differs from Masked by up to {(one - other).abs().max():.2g}"
    return None


def _floats(output: Any) -> list[torch.Tensor]:
    tensors = [t for t in tree_leaves(dict(output)) if isinstance(t, torch.Tensor)]
    return [t for t in tensors if t.is_floating_point()]


def _module(name: str) -> str:
    """Name the module of a parameter, one expert standing for all of its block."""
    return _many(name.rpartition(".")[0])


def _many(module: str) -> str:
    return re.sub(r"(experts?[._])\d+", r"\1*", module)


def _joined(sets: Iterable[Names]) -> dict[str, str]:
    """Name each member of overlapping sets by one of them."""
    joined: list[Names] = []
    for members in sets:
        apart = [other for other in joined if other.isdisjoint(members)]
        joined = [*apart, members.union(*(other for other in joined if other not in apart))]
    return {member: min(members) for members in joined for member in members}


def _number(value: float) -> str:
    return "no straight line" if value != value else f"{value:,.0f}"


def _some(items: Any, join: str = ", ") -> str:
    items = list(items)
    return join.join(items[:3]) + (f"{join}and {len(items) - 3} more" if len(items) > 3 else "")


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    "a": parameters_are_counted, "b": a_saved_folder_is_the_same, "g": commands_agree,
    "c": nothing_is_unclassified, "d": flops_are_those_of_a_run, "s": scores_are_those_of_a_run,
    "e": what_is_pruned_should_be, "f": variants_run,
}  # fmt: skip
