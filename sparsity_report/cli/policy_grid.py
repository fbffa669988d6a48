"""Pruning policies by name, the levels of sparsity of each, and the experts to keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsity_report.cli.options import Choice, PruneOptions
from sparsity_report.counting.allocation import check_sparsity
from sparsity_report.counting.kept_experts import KeptExperts, read_experts
from sparsity_report.counting.policies.policy_registry import calibrated_names, read_option
from sparsity_report.counting.pruning import Inputs, Policy, Pruning
from sparsity_report.errors import SparsityReportError
from sparsity_report.measure.reap import reap
from sparsity_report.weights.weights import Weights
from sparsity_report.words.number_format import read_share


@dataclass(frozen=True)
class Grid:
    """Every policy at every level, and each N:M pattern once.

    Attributes
    ----------
    policies : tuple of Policy
    levels : tuple of float
        Sparsities from 0 to 1.

    Examples
    --------
    >>> grid = Grid.parse(["magnitude,wanda", "2:4"], ["30%,0.5"])
    >>> [policy.option for policy in grid.policies], grid.levels, grid.calibrates, len(grid)
    (['magnitude', 'wanda', '2:4'], (0.3, 0.5), True, 5)
    """

    policies: tuple[Policy, ...]
    levels: tuple[float, ...]

    @classmethod
    def parse(cls, policies: Iterable[str], sparsities: Iterable[str]) -> Grid:
        """Return the grid of comma-separated names and levels, by default magnitude at 30 %."""
        names = [name.lower() for name in _split(policies)] or ["magnitude"]
        levels = [read_sparsity(text) for text in _split(sparsities)] or [0.3]
        return cls(tuple(dict.fromkeys(map(read_option, names))), tuple(dict.fromkeys(levels)))

    @property
    def patterns(self) -> Grid:
        """The patterns alone, which have no level."""
        return Grid(tuple(policy for policy in self.policies if policy.pattern), ())

    def __len__(self) -> int:
        patterns = len(self.patterns.policies)
        return patterns + (len(self.policies) - patterns) * len(self.levels)

    @property
    def calibrates(self) -> bool:
        """True if a policy runs the model on a calibration text."""
        return any(policy.calibrates for policy in self.policies)

    def prunings(self, weights: Weights, inputs: Inputs) -> Iterator[Pruning]:
        """Yield the pruning of each policy at each level."""
        for policy in self.policies:
            for level in (0.0,) if policy.pattern else self.levels:
                yield policy.prune(weights, level, inputs)


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
            f"--calibration has no effect; add --policy {' or '.join(calibrated_names())}, or "
            "--keep-experts with a number, or leave it out"
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
