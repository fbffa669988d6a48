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


def parameters(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the parameters of a file without a model: masks applied, buffers left out.

    Examples
    --------
    >>> file = {"a_orig": torch.ones(2), "a_mask": torch.tensor([0, 1]), "attn.bias": torch.eye(3)}
    >>> parameters(file)
    {'a': tensor([0., 1.])}
    """
    made = dict(tensors)
    for key in [key for key in made if key.endswith("_mask")]:
        stem = key.removesuffix("_mask")
        if weight := {f"{stem}_orig", stem} & made.keys():
            made[stem] = made.pop(weight.pop()) * made.pop(key)
    return {key: part for key, part in made.items() if not _is_buffer(key, part)}


def _is_buffer(key: str, part: torch.Tensor) -> bool:
    *around, leaf = key.split(".")
    if leaf == "bias" and part.dim() > 1:
        return around[-1:] == ["attn"] and part.numel() == part.shape[-1] ** 2
    alone = leaf.endswith("_mask") and not part.is_floating_point()
    return alone or leaf in {"masked_bias", "inv_freq"}


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
