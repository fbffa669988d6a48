"""The exception of this package, and display of untrusted text on one line."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

# Messages of torch, the operating system and its loader when memory runs out.
_NO_MEMORY = re.compile(
    r"(?i)(can't|cannot) allocate memory|(not enough|out of) memory|can't start new thread|"
    r"failed to map segment"
)

# Characters that Python calls printable but that show nothing: Unicode's default ignorables and
# the blank Braille pattern.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
# Most combining marks on one letter, as in UTS #39, section 5.4; more cover adjacent lines.
_MARKS = 4
_JOINERS, _EMOJI_STYLE = "\u200c\u200d", "\ufe0f"
_SPACES = re.compile("[ \t\r\n\u00a0\u202f]+")
_Error = TypeVar("_Error", bound=Exception)
# Errors of reading a file that is missing or damaged.
_DAMAGED = (OSError, ValueError, LookupError, OverflowError, RecursionError)


class SparsityReportError(ValueError):
    r"""Bad input or an output that cannot be written; the message is a single line.

    Parameters
    ----------
    message : str
        Description of the fault; line ends become spaces, other invisible characters
        are escaped.

    Examples
    --------
    >>> str(SparsityReportError("no such file:\n  model.safetensors"))
    'no such file: model.safetensors'
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(_SPACES.sub(" ", message).strip()))


def legible(text: str) -> str:
    r"""Escape invisible characters, so that distinct names look distinct.

    Escaped are control characters, line ends, direction marks, characters without width or glyph,
    lone surrogates and piled-up combining marks. Letters of every script stay, as do the joiners
    of Arabic, Indic scripts and emoji and the no-break spaces of numbers.

    Examples
    --------
    >>> print(legible("a\x1b[31mb\u202ec\u200bd\ne"), legible("模型 שלום é 👩\u200d🔬"))
    a\x1b[31mb\u202ec\u200bd\ne 模型 שלום é 👩\u200d🔬
    """
    if text.isascii() and text.isprintable():
        return text
    legible_parts, marks = [], _MARKS  # a text that begins with a mark has no letter to carry it
    for place, character in enumerate(text):
        marks = marks + 1 if unicodedata.category(character) in {"Mn", "Me"} else 0
        is_visible = character.isprintable() and not _INVISIBLE.match(character) and marks <= _MARKS
        is_kept = is_visible or character in "\u00a0\u202f" or _is_joiner(text, place)
        legible_parts.append(character if is_kept else spelled(character))
    return "".join(legible_parts)


def spelled(character: str) -> str:
    r"""Return the escape sequence of a character.

    Examples
    --------
    >>> print(spelled("🦙"))
    \U0001f999
    """
    return character.encode("unicode_escape").decode()


def printable(text: str, limit: int = 2000) -> str:
    r"""Make untrusted text safe for one line: :func:`legible` and at most `limit` characters.

    Examples
    --------
    >>> printable("a\x1b[31mb"), printable("abcdef", 4)
    ('a\\x1b[31mb', 'abc…')
    """
    safe = legible(text[: limit + 1])
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def writable(text: str) -> str:
    r"""Escape lone surrogates, which cannot be encoded as UTF-8.

    Python puts them into file names that are not UTF-8.

    Examples
    --------
    >>> print(writable("caf\udce9"))
    caf\udce9
    """
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _is_joiner(text: str, place: int) -> bool:
    """Return True where a zero-width character joins the characters around it."""
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


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error, or its type."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    # "… for validator 'validate_architecture':" precedes the reason.
    return f"{first} {more[0].strip()}" if more and first.endswith(":") else first


def check_options(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a keyword that a function does not accept.

    Examples
    --------
    >>> check_options("load", ["steam"], ["stream"])
    Traceback (most recent call last):
    sparsity_report.errors.SparsityReportError: load() accepts stream, not 'steam'
    """
    if unknown := sorted(set(given).difference(known)):
        raise SparsityReportError(f"{function}() accepts {', '.join(known)}, not {unknown[0]!r}")


def ran_out(error: BaseException) -> bool:
    """Return True for an error that means memory ran out; torch has no class for it.

    Examples
    --------
    >>> ran_out(MemoryError()), ran_out(RuntimeError("not enough memory: you tried"))
    (True, True)
    >>> ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    if isinstance(error, RuntimeError | OSError | ImportError):
        return bool(_NO_MEMORY.search(str(error)))
    return isinstance(error, MemoryError)


@contextmanager
def within_memory(task: str, advice: str) -> Iterator[None]:
    """Raise an error that names the task and gives advice if memory runs out.

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
        raise SparsityReportError(f"{task}: memory ran out; {advice}") from error


@contextmanager
def explained(explain: Callable[[_Error], str], *kinds: type[_Error]) -> Iterator[None]:
    """Turn errors of a block into an error of this package.

    Parameters
    ----------
    explain : callable
        Returns the message for an error.
    *kinds : type
        Classes of the errors, by default those of files that cannot be read or are damaged.

    Examples
    --------
    >>> with explained(lambda error: f"x: {error}; save it again"):
    ...     raise ValueError("a number of 99 digits")
    Traceback (most recent call last):
    sparsity_report.errors.SparsityReportError: x: a number of 99 digits; save it again
    """
    caught: Any = kinds or _DAMAGED
    try:
        yield
    except SparsityReportError:
        raise
    except caught as error:
        raise SparsityReportError(explain(error)) from error


@contextmanager
def opening(source: Path, kind: str) -> Iterator[None]:
    """Turn errors from reading a file of this package into one-line errors.

    Parameters
    ----------
    source : pathlib.Path
    kind : str
        Kind of content, such as ``"study"``.
    """

    def explain(error: Exception) -> str:
        if isinstance(error, OSError):
            return f"cannot read {source}: {error.strerror or error}"
        return f"{source} is damaged: {error!r}; save the {kind} again"

    # Tables and settings of any type and shape reach the code that reads them.
    with explained(explain, *_DAMAGED, AttributeError, TypeError):
        yield
