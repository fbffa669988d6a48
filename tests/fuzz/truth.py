"""What this package counts, and what there is to count, in a form that can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

import sparsity_report as sr

# Of each module, or tensor: values, and those that are not zero.
Counts = Mapping[str, tuple[int, int]]


def count(tensor: torch.Tensor) -> tuple[int, int]:
    """Count a tensor by another way than the package does.

    Examples
    --------
    >>> count(torch.tensor([0.0, -0.0, 2.0, float("nan")]))
    (4, 2)
    """
    kind = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.numel(), tensor.numel() - int((tensor.to(kind) == 0).sum())


def counted(model: Any, **options: Any) -> dict[str, tuple[int, int]]:
    """Return what the package says of each module of a model."""
    study = sr.compare(sr.dense(sr.load(model, **options)))
    layers = study.layers
    return {
        row.module_name: (row.total, row.nonzero)
        for row in layers[["module_name", "total", "nonzero"]].itertuples(index=False)
    }


def differs(modules: Counts, tensors: Counts) -> str:
    """Say where counts of modules are not those of the tensors in them; "" where they are.

    Modules may have other names than their tensors, so it is by the multiset of sums that they are
    compared where the names differ.
    """
    due: dict[str, list[int]] = {}
    for name, numbers in tensors.items():
        sums = due.setdefault(name.rpartition(".")[0], [0, 0])
        sums[:] = [one + other for one, other in zip(sums, numbers, strict=True)]
    expected = {name: tuple(sums) for name, sums in due.items()}
    if dict(modules) == expected or Counter(modules.values()) == Counter(expected.values()):
        return ""
    return f"counted as {dict(modules)}, is {expected}"
