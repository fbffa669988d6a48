"""Notes about a study, and the keys by which readers recognize them."""

from collections.abc import Collection, Iterable

from sparsity_report.words.sentences import say, says

#: Key of the note about a file whose content does not match its digest.
EDITED_STUDY = "note.study_edited"


def note_findings(notes: Iterable[str], keys: Collection[str]) -> list[str]:
    """Return the notes with some keys as findings."""
    chosen = [note for note in notes if any(says(note, key) for key in keys)]
    return [say("format.note_sentence", note=note) for note in chosen]
