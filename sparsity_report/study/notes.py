"""Notes about a study or a pair, as phrases, and the keys by which readers recognize them."""

from collections.abc import Collection, Iterable

from sparsity_report.phrases import Phrase, phrase

#: Keys of the notes about a file whose content does not match its digest.
EDITED_STUDY, EDITED_PAIR = "note.study_edited", "note.pair_edited"


def as_phrases(notes: Iterable[Phrase | str]) -> tuple[Phrase, ...]:
    """Return each note once, as a phrase.

    Examples
    --------
    >>> [note.key for note in as_phrases(["no config.json", "no config.json"])]
    ['note.text']
    """
    phrases = (phrase("note.text", text=n) if isinstance(n, str) else n for n in notes)
    return tuple(dict.fromkeys(phrases))


def note_findings(notes: Iterable[Phrase], keys: Collection[str]) -> list[Phrase]:
    """Return the notes with some keys as findings."""
    return [phrase("format.note_sentence", note=note) for note in notes if note.key in keys]
