"""Phrases: sentences, labels and notes as data, a key of the catalogue and its values.

Renderers turn a phrase into text with :func:`sparsity_report.words.sentences.render`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsity_report.errors import SparsityReportError, writable
from sparsity_report.hooks import hooks


@dataclass(frozen=True)
class Phrase:
    """A text that is not written yet: its key in the catalogue and the values to put in.

    ``str`` of a phrase is its text in the language in use.

    Attributes
    ----------
    key : str
        Key of ``templates/languages/<code>.json``.
    items : tuple of (str, object)
        Placeholders and their values: numbers, text, None, phrases, or tuples of these.
    """

    key: str
    items: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return hooks.render(self)

    @property
    def values(self) -> dict[str, Any]:
        """The values by placeholder."""
        return dict(self.items)

    def to_json(self) -> dict[str, Any]:
        """Return the phrase as plain JSON values."""
        return {"key": self.key, "values": {name: _plain(value) for name, value in self.items}}


def phrase(key: str, /, **values: Any) -> Phrase:
    """Return a phrase; lists become tuples, so that phrases can be compared and hashed.

    Examples
    --------
    >>> phrase("audit.excluded_share", reason="norm", share=0.5).values
    {'reason': 'norm', 'share': 0.5}
    """
    return Phrase(key, tuple((name, _frozen(value)) for name, value in values.items()))


def read_phrase(data: Any) -> Phrase:
    """Return the phrase of JSON values that :meth:`Phrase.to_json` wrote.

    Raises
    ------
    SparsityReportError
        The data is not a phrase.
    """
    match data:
        case {"key": str(key), "values": {**values}} if len(data) == 2:
            return phrase(key, **{str(name): _read(value) for name, value in values.items()})
    raise SparsityReportError("a note is not an object with key and values")


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_read, value))
    return read_phrase(value) if isinstance(value, Mapping) else value


def _frozen(value: Any) -> Any:
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, Sequence):
        return tuple(map(_frozen, value))
    return value.item() if hasattr(value, "item") else value


def _plain(value: Any) -> Any:
    if isinstance(value, Phrase):
        return value.to_json()
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
