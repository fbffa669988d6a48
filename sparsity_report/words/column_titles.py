"""Titles of the columns of tables, which the catalogue holds under ``column.`` and the name."""

from sparsity_report.words.languages import spoken


def title(name: str) -> str:
    """Return the title of a column, or the words of its name if it has none.

    Examples
    --------
    >>> title("stored_bytes"), title("sparsity_prunable"), title("own_figure")
    ('stored bytes', 'zeros of the prunable weights', 'own figure')
    """
    return spoken().sentences.get(f"column.{name}", name.replace("_", " "))


def head(name: str) -> str:
    """Return the title of a column as the head of a table, with a capital first.

    Examples
    --------
    >>> head("stored_bytes")
    'Stored bytes'
    """
    text = title(name)
    return text[:1].upper() + text[1:]
