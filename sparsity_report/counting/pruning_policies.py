"""Names and settings of pruning policies, which need no library that reads weights."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from numbers import Real
from typing import ClassVar, Self

from sparsity_report.counting.n_m_patterns import Pattern, is_pattern, parse_pattern
from sparsity_report.errors import SparsityReportError
from sparsity_report.words.number_format import plain

#: Scores by which experts are kept; the first two need a calibration.
EXPERT_SCORES = ("reap", "frequency", "magnitude", "random")
CALIBRATED_SCORES = EXPERT_SCORES[:2]


def check_sparsity(sparsity: object) -> float:
    """Return `sparsity` as a float, or raise an error if it is no share."""
    is_number = isinstance(sparsity, Real) and not isinstance(sparsity, bool)
    if not is_number or not 0 <= sparsity <= 1:  # type: ignore[operator]
        raise SparsityReportError(
            f"sparsity must be a number from 0 to 1, not {sparsity!r}; 30 % is 0.3"
        )
    return float(sparsity)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Policy:
    """A rule that chooses the weights to prune, and its settings.

    A subclass names the rule, and the tuple ``POLICIES`` lists it. The function that prunes by it
    is in ``PRUNE`` of ``counting/policies/policy_registry.py``.

    Attributes
    ----------
    name : str
        Name of the rule in a study, such as ``"random"``; empty if the pattern names it.
    options : tuple of str
        Names on the command line, that of the plain rule first.
    word : str
        Suffix in the names of variants.
    prefix : str
        Prefix in the names of masked variants.
    function : str
        Public function that prunes by the rule.
    needs : str
        Input that keeps the weights left in a module from following from counts, in words, such
        as ``"a seed"``; empty if they follow, see
        :func:`.policy_registry.ladder`.
    calibrates : bool
        True if the input is a calibration.
    has_target : bool
        True if the sparsity is requested, not that of masks or of zeros.
    pattern : Pattern or None
        Pattern of the pruned weights.
    seed : int or None
        Seed of a random rule; commands have only 0.
    allocation : str
        Name of the allocation of sparsity to modules; empty if it is uniform.
    """

    name: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    word: ClassVar[str] = ""
    prefix: ClassVar[str] = "Masked"
    function: ClassVar[str] = ""
    needs: ClassVar[str] = ""
    calibrates: ClassVar[bool] = False
    has_target: ClassVar[bool] = True

    pattern: Pattern | None = None
    seed: int | None = None
    allocation: str = ""

    @classmethod
    def from_option(cls, text: str) -> Self | None:
        """Return the policy of a name on the command line; None for other names."""
        return cls() if text in cls.options else None

    @classmethod
    def families(cls) -> tuple[Self, ...]:
        """Return the policies that an explorer offers, each at several sparsities."""
        return (cls(),)

    def at(self, sparsity: float) -> Policy:  # noqa: ARG002
        """Return the policy at a sparsity of its ladder."""
        return self

    @property
    def option(self) -> str:
        """Name on the command line."""
        return str(self.pattern or self.options[0])

    @property
    def method(self) -> str:
        """Name in a study, with the settings after commas."""
        seed = "" if self.seed is None else f"seed {self.seed}"
        pattern = "" if self.pattern is None else str(self.pattern)
        return ", ".join(filter(None, (self.name, seed, pattern, self.allocation)))

    @property
    def key(self) -> str:
        """Name that the policy has at every sparsity."""
        return self.method

    @property
    def ranking(self) -> str:
        """Order in which the weights of a tensor are pruned, however many it loses."""
        return replace(self, allocation="").method

    def label(self, sparsity: float) -> str:
        """Return the suffix in the names of variants."""
        level = str(self.pattern or f"{round(100 * sparsity, 10):g}")
        seed = f"Seed{self.seed}" if self.seed else ""
        allocation = {"given": "Given", "owl": "OWL"}.get(self.allocation, "")
        return f"{level}{self.word}{allocation}{seed}"

    def python(self, sparsity: float | None) -> str | None:
        """Return the call that prunes so; None if the settings do not determine it."""
        is_known = self.pattern or sparsity is not None
        if self.calibrates or self.allocation or not (self.function and is_known):
            return None
        arguments = list(map(repr, self.pattern or [sparsity]))
        arguments += [] if self.seed is None else [f"seed={self.seed}"]
        return f"sr.{self.function}(weights, {', '.join(arguments)})"

    def command(self, sparsity: float | None) -> str | None:
        """Return the options of the command that prunes so; None if it has none."""
        if sparsity is None or self.seed or self.python(sparsity) is None:
            return None
        level = "" if self.pattern else f"--sparsity {plain(sparsity)} "
        return f"{level}--policy {self.option}"


class _Magnitude(Policy):
    @property
    def ranking(self) -> str:
        """Order of magnitudes, the same one within each tensor."""
        return "magnitude"


class GlobalMagnitude(_Magnitude):
    """The smallest magnitudes over all prunable weights together."""

    name = "global_magnitude"
    options = ("magnitude",)
    function = "global_magnitude"


class LayerwiseMagnitude(_Magnitude):
    """The smallest magnitudes of each prunable tensor."""

    name = "layerwise_magnitude"
    options = ("layerwise",)
    word = "Layerwise"
    function = "layerwise_magnitude"


@dataclass(frozen=True)
class NMPattern(Policy):
    """The largest magnitudes of every m consecutive weights of an output.

    Attributes
    ----------
    group : int
        Weights of a group, m, of a family of patterns; 0 for one pattern.
    """

    name = ""
    options = ("2:4",)
    function = "n_m"

    group: int = 0

    @classmethod
    def from_option(cls, text: str) -> Self | None:
        """Return the policy of a pattern such as ``2:4``."""
        pattern = parse_pattern(text)
        return cls(pattern) if pattern else None

    @classmethod
    def families(cls) -> tuple[Self, ...]:
        """Return the families of patterns with groups of one size."""
        return tuple(cls(group=group) for group in (4, 8))

    def at(self, sparsity: float) -> NMPattern:
        """Return the pattern of this family at a sparsity, or the one pattern."""
        kept = self.group - round(sparsity * self.group)
        return self if self.pattern else NMPattern(Pattern(kept, self.group))

    @property
    def key(self) -> str:
        """Name of the family of patterns."""
        return f"N:{self.pattern.m if self.pattern else self.group}"


class Wanda(Policy):
    """The lowest magnitudes times input norm of each output."""

    name = "wanda_one_pass"
    options = ("wanda", "owl", "wanda-2:4")
    word = "Wanda"
    function = "wanda"
    needs = "calibration texts"
    calibrates = True

    @classmethod
    def from_option(cls, text: str) -> Self | None:
        """Return the policy of ``wanda``, ``owl`` or a pattern such as ``wanda-2:4``."""
        if text.startswith("wanda-"):
            pattern = parse_pattern(text.removeprefix("wanda-"))
            return cls(pattern) if pattern else None
        return cls(allocation=text) if text == "owl" else super().from_option(text)

    @property
    def option(self) -> str:
        """Name on the command line."""
        return f"wanda-{self.pattern}" if self.pattern else self.allocation or "wanda"


class RandomWeights(Policy):
    """Random weights of each prunable tensor."""

    name = "random"
    options = ("random",)
    word = "Random"
    function = "random_unstructured"
    needs = "a seed"

    @classmethod
    def from_option(cls, text: str) -> Self | None:
        """Return the policy with seed 0."""
        return cls(seed=0) if text in cls.options else None


class ExistingZeros(Policy):
    """The zeros that a model has."""

    name = "existing_zeros"
    prefix = "Pruned"
    has_target = False

    def label(self, sparsity: float) -> str:
        """Return the share of zeros in percent."""
        return f"{100 * sparsity:.1f}".removesuffix(".0")

    def python(self, sparsity: float | None) -> str | None:  # noqa: ARG002
        """Return the call that counts the zeros."""
        return "sr.existing_zeros(weights)"

    def command(self, sparsity: float | None) -> str | None:  # noqa: ARG002
        """Return the option that counts the zeros."""
        return "--as-is"


# In the order of menus and messages. A new policy is added here.
POLICIES: tuple[type[Policy], ...] = (
    GlobalMagnitude, LayerwiseMagnitude, NMPattern, Wanda, RandomWeights
)  # fmt: skip


def families() -> dict[str, Policy]:
    """Return the policies that an explorer offers at several sparsities, by their keys.

    Examples
    --------
    >>> list(families())[:4]
    ['global_magnitude', 'layerwise_magnitude', 'N:4', 'N:8']
    """
    return {family.key: family for policy in POLICIES for family in policy.families()}


def read_method(method: str | None) -> Policy | None:
    """Return the policy that a study names; None for no policy, and for an unknown one.

    Examples
    --------
    >>> read_method("random, seed 3"), read_method("imported_masks")
    (RandomWeights(pattern=None, seed=3, allocation=''), None)
    """
    if not method:
        return None
    rule, *settings = method.split(", ")
    name = "" if is_pattern(rule) else rule
    seeds = [int(s[5:]) for s in settings if re.fullmatch(r"seed [0-9]{1,4000}", s)]
    words = [s for s in settings if not (is_pattern(s) or s.startswith("seed "))]
    pattern = parse_pattern(method)
    policies: tuple[type[Policy], ...] = (*POLICIES, ExistingZeros)
    for policy in policies:
        if policy.name == name:
            known = policy(pattern, seeds[0] if seeds else None, words[0] if words else "")
            return known if known.method == method else None
    return None


def read_option(text: str) -> Policy:
    """Return the policy of a name on the command line, or raise an error."""
    for policy in POLICIES:
        if (named := policy.from_option(text)) is not None:
            return named
    raise SparsityReportError(f"--policy {text!r} is unknown; use {', '.join(option_names())}")


def option_names() -> list[str]:
    """Return examples of names on the command line."""
    return [name for policy in POLICIES for name in policy.options]


def calibrated_names() -> list[str]:
    """Return the names on the command line of policies that read a calibration."""
    options = [policy.options for policy in POLICIES if policy.calibrates]
    return [name for names in options for name in names if ":" not in name]
