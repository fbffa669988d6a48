"""The one exception of this package, and how texts that others wrote are shown, in one line."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# How torch, the system and its loader say that there is no memory left, for a thread neither.
_NO_MEMORY = re.compile(
    r"(?i)(can't|cannot) allocate memory|(not enough|out of) memory|can't start new thread|"
    r"failed to map segment"
)

# Printable to Python, yet nothing that a reader sees: what Unicode calls default ignorable, and
# the blank of Braille.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
# Marks above or below one letter, as many as UTS #39, 5.4 has; more cover the lines around it.
_MARKS = 4
_JOINERS, _EMOJI_STYLE = "\u200c\u200d", "\ufe0f"
_SPACES = re.compile("[ \t\r\n\u00a0\u202f]+")


class SparsityReportError(ValueError):
    r"""Bad input or an impossible output; its message is a single line for people.

    Examples
    --------
    >>> str(SparsityReportError("no such file:\n  model.safetensors"))
    'no such file: model.safetensors'
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(_SPACES.sub(" ", message).strip()))


def legible(text: str) -> str:
    r"""Spell out what a reader would not see as it is, so that names stay names, and distinct.

    That is: control characters and line ends, marks of direction, what has no width or no glyph,
    halves of characters, and marks that pile up. Every script stays as it is written, with the
    joiners that Arabic, Indic scripts and emoji need; so do the no-break spaces of numbers.

    Examples
    --------
    >>> print(legible("a\x1b[31mb\u202ec\u200bd\ne"), legible("模型 שלום é 👩\u200d🔬"))
    a\x1b[31mb\u202ec\u200bd\ne 模型 שלום é 👩\u200d🔬
    """
    if text.isascii() and text.isprintable():
        return text
    shown, marks = [], _MARKS  # what a text begins with has nothing of its own to stand on
    for place, character in enumerate(text):
        marks = marks + 1 if unicodedata.category(character) in {"Mn", "Me"} else 0
        seen = character.isprintable() and not _UNSEEN.match(character) and marks <= _MARKS
        kept = seen or character in "\u00a0\u202f" or _joins(text, place)
        shown.append(character if kept else spelled(character))
    return "".join(shown)


def spelled(character: str) -> str:
    r"""Write a character that cannot be shown so that it can be read.

    Examples
    --------
    >>> print(spelled("🦙"))
    \U0001f999
    """
    return character.encode("unicode_escape").decode()


def printable(text: str, limit: int = 2000) -> str:
    r"""Make untrusted text safe for one line of reading: see :func:`legible`, and not endless.

    Examples
    --------
    >>> printable("a\x1b[31mb"), printable("abcdef", 4)
    ('a\\x1b[31mb', 'abc…')
    """
    safe = legible(text[: limit + 1])
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def writable(text: str) -> str:
    r"""Spell out halves of characters, with which no file can be written.

    Python has them where the name of a file is no UTF-8.

    Examples
    --------
    >>> print(writable("caf\udce9"))
    caf\udce9
    """
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _joins(text: str, place: int) -> bool:
    """Whether what has no width stands between signs that are written together with it."""
    if text[place] == _EMOJI_STYLE:
        return _is_picture(text[place - 1 : place])
    around = text[place - 1 : place] + text[place + 1 : place + 2]
    if text[place] not in _JOINERS or len(around) < 2:
        return False
    if all("\u0600" <= letter <= "\u0dff" for letter in around):
        return True
    before = text[max(place - 2, 0) : place].rstrip(_EMOJI_STYLE)[-1:]
    picture = "\U0001f3fb" <= before <= "\U0001f3ff" or _is_picture(before)
    return picture and _is_picture(around[1])


def _is_picture(character: str) -> bool:
    return character != "" and unicodedata.category(character) == "So"


def check_options(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a keyword that a function does not take.

    Examples
    --------
    >>> check_options("load", ["revison"], ["revision"])
    Traceback (most recent call last):
    sparsity_report.errors.SparsityReportError: load() takes revision, not 'revison'
    """
    if unknown := sorted(set(given).difference(known)):
        raise SparsityReportError(f"{function}() takes {', '.join(known)}, not {unknown[0]!r}")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, for which torch has no class of its own.

    Examples
    --------
    >>> ran_out(MemoryError()), ran_out(RuntimeError("not enough memory: you tried"))
    (True, True)
    >>> ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    said = isinstance(error, RuntimeError | OSError | ImportError) and _NO_MEMORY.search(str(error))
    return isinstance(error, MemoryError) or bool(said)


@contextmanager
def within_memory(what: str, instead: str) -> Iterator[None]:
    """Say in one line where memory ran out, and what to do instead.

    Examples
    --------
    >>> with within_memory("counting x", "use a larger machine"):
    ...     raise MemoryError
    Traceback (most recent call last):
    sparsity_report.errors.SparsityReportError: counting x: memory ran out; use a larger machine
    """
    try:
        yield
    except SparsityReportError:
        raise
    except Exception as error:
        if not ran_out(error):
            raise
        raise SparsityReportError(f"{what}: memory ran out; {instead}") from error


@contextmanager
def without_panics() -> Iterator[None]:
    """Raise what a library in Rust panics with, which is no Exception, as RuntimeError.

    Examples
    --------
    >>> class PanicException(BaseException): "As pyo3 makes it."
    >>> with without_panics():
    ...     raise PanicException("range end index 9 out of range")
    Traceback (most recent call last):
    RuntimeError: range end index 9 out of range
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from error


@contextmanager
def opening(source: Path, what: str) -> Iterator[None]:
    """Say in one line what is wrong with a file that this package has saved.

    Parameters
    ----------
    source : pathlib.Path
    what : str
        What it holds, such as ``"study"``.
    """
    try:
        yield
    except SparsityReportError:
        raise
    except OSError as error:
        raise SparsityReportError(f"cannot read {source}: {error.strerror or error}") from error
    except (
        ValueError, KeyError, TypeError, RecursionError, AttributeError, OverflowError, IndexError
    ) as error:  # fmt: skip
        raise SparsityReportError(
            f"{source} is damaged: {error!r}; save the {what} again"
        ) from error
