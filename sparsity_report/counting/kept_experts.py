"""Lists of the experts that a model keeps, as values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from sparsity_report.counting.pruning import Basis
from sparsity_report.hooks import Presentable
from sparsity_report.weights.weights import Module, Weights


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
        ``"reap"``, ``"frequency"``, ``"magnitude"`` or ``"given"``.
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
    method: str = "given"
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


def experts_per_token(module: Module) -> int:
    """Return how many experts of a module a token uses."""
    return math.ceil(_number(module) * max(p.uses for p in module.parameters if p.experts > 1))


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


def _number(module: Module) -> int:
    return max(p.experts for p in module.parameters)


def _checked(weights: Weights, module: Module, numbers: Sequence[int]) -> tuple[int, ...]:
    """Return the kept experts of a module; refuse numbers that are no choice among them."""
    count, least = _number(module), experts_per_token(module)
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
    if len(numbers) < least:
        raise weights.wrong(
            f"would keep {len(numbers):,} of the {count:,} experts of {module.name}, but a token "
            f"uses {least:,}; keep more"
        )
    return tuple(numbers)
