"""Options of version 0.1 under their new names; each use prints a line to stderr."""

from collections.abc import Sequence

from sparsity_report.cli.terminal import complain
from sparsity_report.deprecated import removal

# New options by command and old option. An old option with a suffix had a file as its value.
_RENAMED = {
    ("run", "--json"): ("--study", ""),
    ("run", "--no-json"): ("--no-study", ""),
    ("render", "--json"): ("--study", ""),
    ("render", "--no-json"): ("--no-study", ""),
    ("diff", "--html"): ("--out", ".html"),
    ("pair", "--json"): ("--out", ".json"),
}


def current(command: str, words: Sequence[str]) -> list[str]:
    """Return the words of a command line with the new names of options.

    Examples
    --------
    >>> current("pair", ["a", "b", "--json"])  # the flag of today
    ['a', 'b', '--json']
    """
    renamed: list[str] = []
    for place, word in enumerate(words):
        if word == "--":
            return [*renamed, *words[place:]]
        name, equals, value = word.partition("=")
        new, suffix = _RENAMED.get((command, name), ("", ""))
        following = value if equals else "".join(words[place + 1 : place + 2])
        if new and following.lower().endswith(suffix):
            complain(removal(f"{command} {name}", new + (f" FILE{suffix}" if suffix else "")))
            word = f"{new}{equals}{value}"
        renamed.append(word)
    return renamed
