"""Pruning policies by name, the levels of sparsity of each, and the experts to keep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsity_report.cli.options import Choice, PruneOptions
from sparsity_report.counting import policies
from sparsity_report.counting.allocation import check_sparsity
from sparsity_report.counting.disk_cache import CacheFolder
from sparsity_report.counting.kept_experts import KeptExperts, read_experts
from sparsity_report.counting.pruning import Pruning
from sparsity_report.errors import SparsityReportError
from sparsity_report.measure.calibration import Calibration
from sparsity_report.measure.reap import reap
from sparsity_report.measure.wanda import wanda
from sparsity_report.weights.weights import Weights
from sparsity_report.words.number_format import read_share

_POLICIES = ("magnitude", "layerwise", "wanda", "owl", "random")
_PATTERN = re.compile(r"(wanda-)?([0-9]{1,5}):([0-9]{1,5})")


@dataclass(frozen=True)
class Grid:
    """Every policy at every level, and each N:M pattern once.

    Attributes
    ----------
    policies : tuple of str
        ``magnitude``, ``layerwise``, ``wanda``, ``owl`` (Wanda with OWL's allocation), ``random``,
        a pattern such as ``2:4``, or ``wanda-2:4``.
    levels : tuple of float
        Sparsities from 0 to 1.

    Examples
    --------
    >>> grid = Grid.parse(["magnitude,wanda", "2:4"], ["30%,0.5"])
    >>> grid.policies, grid.levels, grid.calibrates, len(grid)
    (('magnitude', 'wanda', '2:4'), (0.3, 0.5), True, 5)
    """

    policies: tuple[str, ...]
    levels: tuple[float, ...]

    @classmethod
    def parse(cls, policies: Iterable[str], sparsities: Iterable[str]) -> Grid:
        """Return the grid of comma-separated names and levels, by default magnitude at 30 %."""
        names = [name.lower() for name in _split(policies)] or ["magnitude"]
        for name in names:
            if name not in _POLICIES and not _PATTERN.fullmatch(name):
                raise SparsityReportError(
                    f"--policy {name!r} is unknown; use {', '.join(_POLICIES)}, a pattern such as "
                    "2:4, or wanda-2:4"
                )
        levels = [read_sparsity(text) for text in _split(sparsities)] or [0.3]
        return cls(tuple(dict.fromkeys(names)), tuple(dict.fromkeys(levels)))

    @property
    def patterns(self) -> Grid:
        """The patterns alone, which have no level."""
        names = tuple(name for name in self.policies if _PATTERN.fullmatch(name))
        return Grid(names, ())

    def __len__(self) -> int:
        patterns = sum(map(bool, map(_PATTERN.fullmatch, self.policies)))
        return patterns + (len(self.policies) - patterns) * len(self.levels)

    @property
    def calibrates(self) -> bool:
        """True if a policy runs the model on a calibration text."""
        return any(name == "owl" or name.startswith("wanda") for name in self.policies)

    def prunings(
        self,
        weights: Weights,
        calibration: Calibration | None = None,
        *,
        executor: Executor | None = None,
        cache: CacheFolder | None = None,
    ) -> Iterator[Pruning]:
        """Yield the pruning of each policy at each level; see :func:`global_magnitude`."""
        counting: dict[str, Any] = {"executor": executor, "cache": cache}
        for name in self.policies:
            pattern = _PATTERN.fullmatch(name)
            if pattern and not pattern[1]:
                yield policies.n_m(weights, int(pattern[2]), int(pattern[3]), **counting)
            elif pattern:
                keep = int(pattern[2]), int(pattern[3])
                yield wanda(weights, None, calibration, n_m=keep)
            for level in () if pattern else self.levels:
                if name == "magnitude":
                    yield policies.global_magnitude(weights, level, **counting)
                elif name == "layerwise":
                    yield policies.layerwise_magnitude(weights, level, **counting)
                elif name == "random":
                    yield policies.random_unstructured(weights, level)
                else:
                    shares = "owl" if name == "owl" else None
                    yield wanda(weights, level, calibration, allocation=shares)


def _split(texts: Iterable[str]) -> list[str]:
    return [part.strip() for text in texts for part in text.split(",")]


def read_sparsity(text: str, name: str = "--sparsity") -> float:
    """Return the sparsity of an option such as ``0.3`` or ``30%``; `name` is that of the option."""
    try:
        return check_sparsity(read_share(text))
    except ValueError:
        raise SparsityReportError(
            f"{name} {text!r} is not a share; use 0 to 1, or 0% to 100%; 30 % is 0.3"
        ) from None


def check_experts(
    options: Choice | PruneOptions, calibrates: bool, score: str | None = None
) -> None:
    """Refuse contradictory options before a model is opened; `calibrates` is that of policies."""
    keep = _read_experts(options.keep_experts) if options.keep_experts else None
    is_scored = isinstance(keep, int | float)
    if score is not None and not is_scored:
        raise SparsityReportError(
            "--score has no effect; add --keep-experts with a number or a share, or leave it out"
        )
    calibrates |= is_scored and score != "magnitude"
    if options.calibration is not None and not calibrates:
        raise SparsityReportError(
            "--calibration has no effect; add --policy wanda or owl, or --keep-experts with a "
            "number, or leave it out"
        )


def chosen_experts(
    weights: Weights, options: Choice | PruneOptions, score: str | None = None
) -> KeptExperts:
    """Return the experts that the options keep."""
    keep, score = _read_experts(options.keep_experts or ""), score or "reap"
    if isinstance(keep, Path):
        return read_experts(weights, keep)
    text = None if score == "magnitude" else options.calibration
    return reap(weights, text, keep=keep, score=score)


def _read_experts(text: str) -> float | Path:
    """Return a number of experts, their share, or the file of a list."""
    try:
        return int(text) if text.isdecimal() else read_share(text)
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        raise SparsityReportError(
            f"--keep-experts {text!r} is neither a number, nor a share such as 75%, nor a file"
        ) from None
