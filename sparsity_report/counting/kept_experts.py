"""Lists of the experts that a model keeps, as values and as files."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

import sparsity_report
from sparsity_report.counting.pruning import Basis
from sparsity_report.errors import SparsityReportError, explained, opening, writable
from sparsity_report.files.atomic import write_file
from sparsity_report.hooks import Presentable
from sparsity_report.untrusted.gates import check_integer, read_json
from sparsity_report.weights.weights import Module, Parameter, Weights

#: Scores by which experts are kept, and a list from elsewhere.
METHODS = ("reap", "frequency", "magnitude", "expert_list")
_FORMAT = "sparsity-report/experts"


@dataclass(frozen=True, repr=False, eq=False)
class KeptExperts(Presentable):
    """A choice of the experts that a model keeps; the model is not modified.

    Parameters
    ----------
    weights : Weights
        The model with all its experts.
    kept : mapping of str to sequence of int
        Numbers of the kept experts from 0, in ascending order, by the name in memory of the module
        that holds them, such as ``model.layers.0.mlp.experts``. A module that is left out keeps
        all.
    method : str
        ``"reap"``, ``"frequency"``, ``"magnitude"`` or ``"expert_list"``.
    basis : Basis, optional
        Calibration text or file.
    use : pandas.DataFrame, optional
        Router use on that text, the ``experts`` of a :class:`Calibration`.

    Attributes
    ----------
    counts : mapping of str to int
        Experts before the removal, by the same names.

    Raises
    ------
    SparsityReportError
        A module has no experts or shares them with another one; a number is out of range, out of
        order or there twice; or fewer experts are kept than a token uses.
    """

    weights: Weights
    kept: Mapping[str, Sequence[int]]
    method: str = "expert_list"
    basis: Basis | None = None
    use: pd.DataFrame | None = None
    counts: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        modules = routed_modules(self.weights)
        kept = {name: tuple(range(_number(module))) for name, module in modules.items()}
        for name, numbers in self.kept.items():
            if name not in kept:
                raise self.weights.wrong(
                    f"has no experts in {name!r}; name modules such as {next(iter(kept))!r}"
                )
            kept[name] = _checked(self.weights, modules[name], numbers)
        object.__setattr__(self, "counts", expert_stacks(self.weights))
        object.__setattr__(self, "kept", kept)

    @property
    def removed(self) -> int:
        """Number of removed experts of all modules."""
        return sum(self.counts.values()) - sum(map(len, self.kept.values()))

    @property
    def label(self) -> str:
        """Suffix in the names of variants: ``6of8``; sums if modules keep unequal numbers."""
        pairs = {(len(self.kept[name]), count) for name, count in self.counts.items()}
        total = sum(self.counts.values())
        kept, count = pairs.pop() if len(pairs) == 1 else (total - self.removed, total)
        return f"{kept}of{count}"

    def overlap(self, other: KeptExperts) -> pd.DataFrame:
        """Compare with another list for the same model, module by module.

        Parameters
        ----------
        other : KeptExperts
            A list for weights with the same experts.

        Returns
        -------
        pandas.DataFrame
            One row per module: ``module_name``, ``block``, ``experts`` before the removal,
            ``both`` (kept by both lists), ``first`` and ``second`` (kept by one list alone) and
            ``overlap``, the share kept by both of those kept by either.

        Raises
        ------
        SparsityReportError
            The lists are for models with other experts.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> import transformers
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
        >>> config = transformers.MixtralConfig(vocab_size=8, num_local_experts=4, **sizes)
        >>> weights = sr.load(transformers.MixtralForCausalLM(config))
        >>> one, other = (sr.read_experts({"0": kept}, weights) for kept in ([0, 1, 2], [1, 2, 3]))
        >>> one.overlap(other)["overlap"].tolist()
        [0.5]
        """
        if self.counts != other.counts:
            raise self.weights.wrong(
                f"has other experts than {other.weights.name}; compare lists for one model"
            )
        blocks, rows = {o.name: o.block for o in self.weights.modules}, []
        for name, count in self.counts.items():
            one, two = set(self.kept[name]), set(other.kept[name])
            both, alone = len(one & two), (len(one - two), len(two - one))
            share = both / len(one | two)
            rows.append((name, blocks[name], count, both, *alone, share))
        columns = ["module_name", "block", "experts", "both", "first", "second", "overlap"]
        return pd.DataFrame(rows, columns=columns).astype({"block": "Int64"})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the list as JSON, which :func:`read_experts` reads back.

        Router use is not written.

        Parameters
        ----------
        path : path-like
            The file to write.

        Returns
        -------
        pathlib.Path
            The file.
        """
        data = {
            "format": _FORMAT,
            "version": 1,
            "written_by": f"sparsity-report {sparsity_report.__version__}",
            "model": self.weights.name,
            "method": self.method,
            "basis": self.basis and asdict(self.basis),
            "counts": self.counts,
            "kept": self.kept,
        }
        return write_file(path, json.dumps(data, ensure_ascii=False, indent=1))


def read_experts(
    source: str | os.PathLike[str] | Mapping[Any, Any], weights: Weights
) -> KeptExperts:
    """Read a list of kept experts from a file or a mapping.

    Parameters
    ----------
    source : path-like or mapping
        A JSON file of :meth:`KeptExperts.save`; the report of llm-compressor's
        ``REAPPruningModifier(report_path=…)``; the ``pruning-plan.json`` of reap-mlx; or any
        object that maps modules of experts, the modules around them or numbers of blocks to lists
        of the kept experts. The authors' REAP and mergekit write no list: pass REAP's observations
        to :func:`reap`.
    weights : Weights
        The model with all its experts.

    Returns
    -------
    KeptExperts
        A module that is not in the list keeps all its experts.

    Raises
    ------
    SparsityReportError
        The file cannot be read, or its list is no choice among the experts of this model.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import transformers
    >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    >>> config = transformers.MixtralConfig(vocab_size=8, num_local_experts=4, **sizes)
    >>> weights = sr.load(transformers.MixtralForCausalLM(config))
    >>> kept = sr.read_experts({"model.layers.0.mlp": [0, 1, 3]}, weights)
    >>> kept.label, kept.removed
    ('3of4', 1)
    """
    if isinstance(source, Mapping):
        return _given(weights, "list", source)
    path = Path(source)
    with opening(path, "list"):
        data = read_json(path, once=True, finite=True)
        return (_saved if data.get("format") == _FORMAT else _given)(weights, path.name, data)


def _saved(weights: Weights, name: str, data: Mapping[str, Any]) -> KeptExperts:
    """Return the list of a file of this program."""
    if check_integer(data["version"], "version", low=1) > 1:
        raise SparsityReportError(f"{name}: has a newer format; upgrade sparsity-report")
    if data["counts"] != expert_stacks(weights):
        raise SparsityReportError(
            f"{name}: is a list for other weights than {weights.name}, whose modules have other "
            "experts; give the list of these weights"
        )
    basis = data["basis"] and Basis(**data["basis"])
    if basis:
        texts, numbers = (basis.name, basis.fingerprint), (basis.windows, basis.window)
        for number in (n for n in numbers if numbers != (None, None)):
            check_integer(number, "window", low=1)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("basis: is no text")
    if data["method"] not in METHODS:
        raise ValueError("method: is unknown")
    return KeptExperts(weights, data["kept"], data["method"], basis)


def _given(weights: Weights, name: str, data: Mapping[Any, Any]) -> KeptExperts:
    """Return the list of another program."""
    kept: dict[str, list[int]] = {}
    advice = "give lists of the kept experts by module or block"
    with explained(lambda error: f"{name}: {error!r}; {advice}", LookupError, TypeError):
        lists: Mapping[Any, list[int]] = data
        if isinstance(rows := data.get("kept"), list):  # reap-mlx
            lists = defaultdict(list)
            for row in rows:
                lists[row["layer"]].append(row["expert"])
        for key, numbers in lists.items():
            if any(type(number) is not int for number in numbers):
                raise SparsityReportError(f"{name}: {key!r} holds more than numbers; {advice}")
            module = find_module(weights, key, name)
            if kept.setdefault(module, sorted(numbers)) != sorted(numbers):
                raise SparsityReportError(f"{name}: {key!r} is there twice; keep one list of it")
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    return KeptExperts(weights, kept, basis=Basis(writable(name), digest[:16]))


def find_module(weights: Weights, key: object, name: str) -> str:
    """Return the module of experts that another program names: it, its parent or its block."""
    modules = routed_modules(weights)
    fitting = [
        module.name
        for module in modules.values()
        if key in (module.name, module.name.rpartition(".")[0]) or str(key) == str(module.block)
    ]
    if len(fitting) != 1:
        raise SparsityReportError(
            f"{name}: {key!r} names {len(fitting):,} modules of experts of {weights.name}; name "
            f"each like {next(iter(modules))!r}, or by the number of its block"
        )
    return fitting[0]


def expert_stacks(weights: Weights) -> dict[str, int]:
    """Return the number of experts of each module in memory that a router chooses from.

    Examples
    --------
    >>> import torch, transformers
    >>> from sparsity_report.weights.sources.memory import ModuleWeights
    >>> sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    >>> heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4}
    >>> model = transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes, **heads))
    >>> expert_stacks(ModuleWeights(model))
    {'model.layers.0.mlp.experts': 4}
    """
    return {name: _number(module) for name, module in _routed(weights).items()}


def expert_groups(module: Module) -> list[range]:
    """Return the groups of experts among which the router of a module chooses first."""
    count, groups = _number(module), _stack(module).expert_groups[0]
    return [range(start, start + count // groups) for start in range(0, count, count // groups)]


def routed_modules(weights: Weights) -> dict[str, Module]:
    """Return the modules that hold experts; refuse a model without, or with shared ones."""
    modules = _routed(weights)
    if not modules:
        raise weights.wrong(
            "has no modules with several experts of which a token uses some; open a mixture of "
            "experts with its config.json"
        )
    for p in (p for module in modules.values() for p in module.parameters):
        if p.tied_to:
            raise weights.wrong(
                f"shares the experts of {p.name} with {p.tied_to}, so they cannot be removed from "
                "one alone; save the model with separate tensors"
            )
    return modules


def _routed(weights: Weights) -> dict[str, Module]:
    return {
        module.name: module
        for module in weights.modules
        if any(p.experts > 1 and p.uses < 1 for p in module.parameters)
    }


def _stack(module: Module) -> Parameter:
    return max(module.parameters, key=lambda p: p.experts)


def _number(module: Module) -> int:
    return _stack(module).experts


def _checked(weights: Weights, module: Module, numbers: Sequence[int]) -> tuple[int, ...]:
    """Return the kept experts of a module; refuse numbers that are no choice among them."""
    count = _number(module)
    bad = next((n for n in numbers if type(n) is not int or not 0 <= n < count), None)
    if bad is not None:
        raise weights.wrong(
            f"has no expert {bad!r} in {module.name}, whose experts are 0 to {count - 1:,}; give a "
            "list for these weights"
        )
    if list(numbers) != sorted(set(numbers)):
        raise weights.wrong(
            f"would keep an expert of {module.name} twice or out of order; give each once, in "
            "ascending order"
        )
    in_groups = {len(set(group).intersection(numbers)) for group in expert_groups(module)}
    if len(in_groups) > 1:
        raise weights.wrong(
            f"would keep {min(in_groups):,} to {max(in_groups):,} experts of the groups that the "
            f"router of {module.name} chooses from; keep equally many of each"
        )
    reached = in_groups.pop() * _stack(module).expert_groups[1]
    if reached < (used := math.ceil(count * _stack(module).uses)):
        raise weights.wrong(
            f"would keep {len(numbers):,} of the {count:,} experts of {module.name}, of which a "
            f"token can reach {reached:,}, but it uses {used:,}; keep more"
        )
    return tuple(numbers)
