"""Deferred import of torch: the library loads when code first uses one of its names.

A module writes ``from sparsity_report.deferred import torch`` if some of its functions need no
torch. A program that calls only these never loads the library. Types stay those of torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    from torch import nn as nn
else:

    class _Deferred:
        """Stand-in for a module of torch."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            import torch  # noqa: F401, loads torch.nn as well

            return getattr(sys.modules[self._name], name)

    torch, nn = _Deferred("torch"), _Deferred("torch.nn")
