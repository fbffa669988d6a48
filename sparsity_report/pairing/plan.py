"""Which parameter of a model is which of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.parameters import Parameter
from sparsity_report.weights.weights import Weights

# How a parameter was recognised.
ALIGNMENTS = ("name", "renamed", "content", "fused", "turned", "removed", "added")


@dataclass(frozen=True)
class Link:
    """A parameter of the base and the one that became of it; without one side, what is gone or new.

    Attributes
    ----------
    before, after : Parameter or None
    alignment : str
        One of :data:`ALIGNMENTS`.
    certainty : float
        1 where the name or equal values leave no doubt.
    """

    before: Parameter | None
    after: Parameter | None
    alignment: str = "name"
    certainty: float = 1.0

    @property
    def name(self) -> str:
        """Of the link, unique in a plan."""
        told = self.before or self.after
        assert told is not None
        return told.name if self.before else f"+ {told.name}"

    @property
    def parameters(self) -> Iterator[Parameter]:
        """The one or two that there are."""
        return (p for p in (self.before, self.after) if p is not None)


@dataclass(frozen=True, eq=False)
class Plan:
    """How two models are read side by side.

    Attributes
    ----------
    before, after : Weights
    links : tuple of Link
        Every stored parameter of both stands in one.
    """

    before: Weights
    after: Weights
    links: tuple[Link, ...]


def plan(before: Weights, after: Weights) -> Plan:
    """Pair the parameters of two models by their names.

    Raises
    ------
    SparsityReportError
        A model has no values, or they are not of one shape.
    """
    for weights in (before, after):
        if unknown := next((p.name for p in weights.stored if not p.known), None):
            raise SparsityReportError(
                f"{weights.name}: the values of {unknown!r} are not known, and only values tell "
                "what became of a weight; open it with its values"
            )
    theirs = {p.name: p for p in after.stored}
    links = []
    for p in before.stored:
        twin = theirs.pop(p.name, None)
        if twin is not None and twin.shape != p.shape:
            raise SparsityReportError(
                f"{p.name} has shape {p.shape} in {before.name} and {twin.shape} in {after.name}: "
                "they are compared weight by weight where both have one shape"
            )
        links.append(Link(p, twin, "name" if twin else "removed"))
    links += [Link(None, p, "added") for p in theirs.values()]
    return Plan(before, after, tuple(links))
