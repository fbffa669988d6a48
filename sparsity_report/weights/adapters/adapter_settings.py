"""Modules that PEFT adapts, with their ranks and scalings, by the configuration of an adapter."""

import math
import re
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, cast

from sparsity_report.errors import SparsityReportError
from sparsity_report.untrusted import limits
from sparsity_report.weights.sources.model_files import CONFIG

# Repeated groups and long repeats may exhaust memory when they are compiled. Other braces and
# nested sets have another meaning for `regex` than for `re`, which cannot stop after a time.
_UNBOUNDED = re.compile(r"\)[*+{]|\[\[|\{(?!\d{0,2}(,\d{0,2})?\})")
_FIRST_NUMBER = r".*?\.[^.]*\.(?P<idx>\d+)\."
_SAVED, _IN_LAYERS = r"(^|.*\.){}($|\..*)", r"(?:^|.*?\.){}\.(?P<idx>\d+)\."


class AdapterSettings:
    """Settings of an adapter for each module, as PEFT reads them.

    Parameters
    ----------
    config : mapping
        Configuration of the adapter.
    wrong : callable
        Returns an error from its reason.

    Attributes
    ----------
    saved : tuple of str
        Ends of the names of modules that are saved whole.
    """

    def __init__(
        self, config: Mapping[str, Any], wrong: Callable[[str], SparsityReportError]
    ) -> None:
        self._config, self._wrong = config, wrong
        self._until = monotonic() + limits.PATTERN_SECONDS
        self._targets = self._names("target_modules")
        self._excluded = self._names("exclude_modules")
        saved, patterns = self._names("modules_to_save"), self._names("layers_pattern")
        beside = [config.get("layers_pattern"), config.get("layers_to_transform")]
        layers = config.get("layers_to_transform")
        numbers = layers if isinstance(layers, list) else [layers]
        targets, is_pattern = config.get("target_modules"), isinstance(self._targets, str)
        if not targets or str(targets).lower() == "all-linear":
            raise wrong(f"target_modules = {targets!r} does not name the adapted modules")
        if isinstance(saved, str):
            raise wrong(f"modules_to_save = {saved!r} is not a list")
        if layers is not None and not all(type(number) is int for number in numbers):
            raise wrong(f"layers_to_transform = {layers!r} is not a list of integers")
        if (patterns and layers is None) or (is_pattern and beside != [None, None]):
            raise wrong("layers_pattern or layers_to_transform is set without what it needs")
        self.saved = tuple(saved)
        self._layers = frozenset(numbers) - {None}
        self._patterns = (patterns,) if isinstance(patterns, str) else patterns

    def adapts(self, module: str) -> bool:
        """Return whether PEFT adapts a module of this name."""
        is_saved = any(self._match(_SAVED.format(name), module) for name in self.saved)
        if is_saved or self._has(self._excluded, module) or not self._has(self._targets, module):
            return False
        # A full name is adapted in any layer.
        is_full = not isinstance(self._targets, str) and module in self._targets
        return is_full or not self._layers or self._layer(module) in self._layers

    def rank(self, module: str) -> int:
        """Return the rank of the matrices of a module."""
        return int(self._number("r", "rank_pattern", module, int))

    def scaling(self, module: str) -> float:
        """Return the factor of the product of the matrices of a module."""
        rank = self.rank(module)
        alpha = self._number("lora_alpha", "alpha_pattern", module, int | float)
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def _number(self, field: str, patterns: str, module: str, kind: Any) -> int | float:
        """Return a number for a module: that of the first pattern that ends its name."""
        numbers = (self._config.get(patterns) or {}).items()
        matching = (n for pattern, n in numbers if self._match(rf"(.*\.)?({pattern})$", module))
        value: Any = next(matching, self._config.get(field))
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not is_number or not (1 if kind is int else -1e9) <= value < 1e9:
            raise self._wrong(f"{CONFIG} gives {field} = {value!r} for {module!r}")
        return cast(float, value)

    def _match(self, pattern: str, text: str, full: bool = False) -> re.Match[str] | None:
        """Return the match of a pattern with the start of a text, or with all of it."""
        import regex

        shown = f"pattern {pattern!r} of {CONFIG}"
        seconds = self._until - monotonic()
        if _UNBOUNDED.search(pattern) or seconds < 0:
            raise self._wrong(f"{shown} is too complex")
        try:
            re.compile(pattern)
            search = regex.fullmatch if full else regex.match
            matched: re.Match[str] | None = search(pattern, text, timeout=seconds)
        except TimeoutError as error:
            raise self._wrong(f"{shown} is too complex") from error
        except (re.error, regex.error, RecursionError, OverflowError) as error:
            raise self._wrong(f"{shown} is not a regular expression: {error}") from error
        return matched

    def _has(self, names: str | Mapping[str, None], module: str) -> bool:
        """Return whether names contain a module or the end of its name, or a pattern fits it."""
        if isinstance(names, str):
            return self._match(names, module, full=True) is not None
        return any(module[dot.end() :] in names for dot in re.finditer(r"^|\.", module))

    def _layer(self, module: str) -> int | None:
        patterns = map(_IN_LAYERS.format, self._patterns) if self._patterns else [_FIRST_NUMBER]
        matches = (self._match(pattern, module) for pattern in patterns)
        match = next(filter(None, matches), None)
        return int(match["idx"]) if match else None

    def _names(self, field: str) -> Any:
        """Return a field that is empty, a pattern or a list of names."""
        value = self._config.get(field)
        if value is None or isinstance(value, str):
            return value or {}
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self._wrong(f"{field} = {value!r} is neither a pattern nor a list of names")
        return dict.fromkeys(value)
