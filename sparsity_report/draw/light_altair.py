"""What altair's import brings along and drawing does not need: a grammar of addresses.

Where Jupyter is installed, jsonschema, which altair imports, takes ``rfc3987_syntax`` to check
IRIs with. Its parser is made on import and takes longer than altair itself, 1.5 s.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_GRAMMAR = "rfc3987_syntax"


class _Deferred(ModuleType):
    """Stands in for the grammar until anything but a name of it is asked for."""

    def is_valid_syntax(self, *told: str) -> bool:
        return bool(_grammar().is_valid_syntax(*told))

    def __getattr__(self, name: str) -> Any:
        return getattr(_grammar(), name)


def _grammar() -> Any:
    if isinstance(sys.modules.get(_GRAMMAR), _Deferred):
        del sys.modules[_GRAMMAR]
    import rfc3987_syntax

    return rfc3987_syntax


def defer_grammar() -> None:
    """Let the grammar be made when an IRI is first checked; to be called before altair's import."""
    if _GRAMMAR in sys.modules or (spec := find_spec(_GRAMMAR)) is None:
        return
    stand_in = _Deferred(_GRAMMAR)
    stand_in.__spec__, stand_in.__file__ = spec, spec.origin
    stand_in.__path__ = spec.submodule_search_locations or []
    sys.modules[_GRAMMAR] = stand_in
