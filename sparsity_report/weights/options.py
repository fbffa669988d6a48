"""What a user wants of a model that is opened: its name, what pruning spares, groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sparsity_report.weights.groups import check_rules


@dataclass(frozen=True)
class ReaderOptions:
    """What every format is opened with.

    Attributes
    ----------
    name : str
        What to call the model in tables and reports; of a module in memory empty for its own.
    blacklist : collection of str
        Modules with one of these words in their dotted name are not pruned.
    groups : mapping of pattern to group, optional
        The user's own grouping, see :func:`sparsity_report.weights.groups.classify`.
    notes : tuple of str
        What is known of where the model came from.
    """

    name: str = ""
    blacklist: Collection[str] = ("lm_head",)
    groups: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_rules(self.groups)
        if isinstance(self.blacklist, str):
            object.__setattr__(self, "blacklist", (self.blacklist,))

    def spares(self, module_name: str) -> bool:
        """Whether pruning leaves a module alone."""
        return not set(self.blacklist).isdisjoint(module_name.split("."))
