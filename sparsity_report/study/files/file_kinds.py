"""The two kinds of saved files, study and pair: their tables, and the check of their content."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sparsity_report.study.comparison import Comparison
from sparsity_report.study.files.value_bounds import check_pair, check_study
from sparsity_report.study.notes import EDITED_PAIR, EDITED_STUDY
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.schema import MEASURED, SIDES


@dataclass(frozen=True)
class FileKind:
    """The content of one kind of file.

    Attributes
    ----------
    name : str
        ``"study"`` or ``"pair"``.
    value : type
        The class of the value that the file holds.
    tables : mapping of str to str
        Tables that are stored: the attribute of the value, and the table of the schema.
    derived : mapping of str to str
        Tables that follow from those, repeated for other programs and checked when read.
    edited : str
        Key of the note about a file whose content does not match its digest.
    check : callable
        Refuse a value whose numbers are impossible.
    settings : tuple of str
        Attributes that are plain values.
    optional : frozenset of str
        Tables that may be null.
    """

    name: str
    value: type[Any]
    tables: Mapping[str, str]
    derived: Mapping[str, str]
    edited: str
    check: Callable[[Any], None]
    settings: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()

    @property
    def format(self) -> str:
        """The text by which a program recognizes the file."""
        return f"sparsity-report/{self.name}"


def _same_names(*parts: str) -> dict[str, str]:
    return dict(zip(parts, parts, strict=True))


_MAYBE = ("levels", "patterns", *MEASURED)
STUDY = FileKind(
    name="study",
    value=Comparison,
    tables=_same_names("variants", "layers", *_MAYBE),
    derived=_same_names("groups", "totals"),
    edited=EDITED_STUDY,
    check=check_study,
    settings=("convention", "context"),
    optional=frozenset(_MAYBE),
)
PAIR = FileKind(
    name="pair",
    value=Pair,
    tables={
        **{part: f"pair_{part}" for part in ("models", "layers", "removed")},
        **dict.fromkeys(SIDES, "layers"),
    },
    derived={part: f"pair_{part}" for part in ("survival", "groups", "totals", "sparsities")},
    edited=EDITED_PAIR,
    check=check_pair,
)
KINDS = (STUDY, PAIR)
