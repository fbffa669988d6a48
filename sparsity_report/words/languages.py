"""Languages: the catalogue of phrases by key, and how numbers are written.

A catalogue is a file ``languages/<code>.json`` among the templates, the package's own or the
user's. A phrase that a catalogue lacks is written in English.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError, printable
from sparsity_report.files.package_data import shipped


@dataclass(frozen=True)
class Language:
    """A catalogue of phrases, and how numbers are written.

    Attributes
    ----------
    code : str
        For HTML and PDF, such as ``"fr"``.
    decimal, thousands, space, conjunction : str
        Between units and tenths; between thousands; before a unit or %; before the last of a list.
    singular_below_two : bool
        Whether 0 and 1.5 are singular, as in French; else 1 alone is.
    units : mapping of str to str
        ``B`` and ``FLOPs`` where they are called something else.
    sentences : mapping of str to str
        Templates by key, the English ones where a language lacks its own.
    """

    code: str = "en"
    decimal: str = "."
    thousands: str = "\u202f"
    space: str = " "
    conjunction: str = "and"
    singular_below_two: bool = False
    units: Mapping[str, str] = field(default_factory=dict)
    sentences: Mapping[str, str] = field(default_factory=dict)

    def template(self, key: str) -> str:
        """Return the template of a key."""
        try:
            return self.sentences[key]
        except KeyError:
            raise SparsityReportError(
                f"languages/en.json: the key {key!r} is missing; add its text"
            ) from None


_SPOKEN: ContextVar[Language | None] = ContextVar("spoken", default=None)


def spoken() -> Language:
    """Return the language in use."""
    return _SPOKEN.get() or _english()


@cache
def _english() -> Language:
    return _catalogue("en", None)


@contextmanager
def speaking(
    language: str | Language, template_dir: str | os.PathLike[str] | None = None
) -> Iterator[Language]:
    r"""Say everything in a language for the length of a block.

    Parameters
    ----------
    language : str or Language
        ``"en"``, ``"fr"``, or any for which there is a file ``languages/<language>.json``; or one
        that was spoken before.
    template_dir : path-like, optional
        Where the user's own catalogues are; they add to the package's and come before them.

    Examples
    --------
    >>> from sparsity_report.words.sentences import say
    >>> with speaking("fr"):
    ...     say("format.name_percent_share", name="MLP", share=0.3)
    'MLP\xa0: 30,0\xa0%'
    """
    before = _SPOKEN.set(
        language if isinstance(language, Language) else _catalogue(language, template_dir)
    )
    try:
        yield spoken()
    finally:
        _SPOKEN.reset(before)


def template_folders(template_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return where templates and catalogues are looked for, the user's own first."""
    folders = shipped("templates")
    if template_dir is None:
        return folders
    own = Path(template_dir)
    if not own.is_dir():
        near = _near(own.name, _names(own.parent))
        raise SparsityReportError(f"template_dir {printable(str(own))} is not a folder{near}")
    known = {path.relative_to(folder) for folder in folders for path in folder.rglob("*.*")}
    if not any((own / path).is_file() for path in known) and not (
        _catalogues(own) or _sections(own)
    ):
        near = "".join(_near(name, {*map(str, known), *_parts(known)}) for name in _names(own)[:3])
        raise SparsityReportError(
            f"template_dir {printable(str(own))} holds none of the templates there are, such as "
            f"report.html.j2 or languages/fr.json{near}"
        )
    return [own, *folders]


def _catalogues(folder: Path) -> list[Path]:
    return list((folder / "languages").glob("*.json"))


def _sections(folder: Path) -> list[Path]:
    """Return the templates of sections, each of which has the key of its section as its name."""
    return [*(folder / "sections").glob("*.html.j2"), *(folder / "typst").glob("*.typ.j2")]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _parts(paths: Iterable[Path]) -> set[str]:
    return {part for path in paths for part in path.parts}


def _near(name: str, there: Iterable[str]) -> str:
    """Name what a name was meant to be; nothing where nothing is near."""
    near = [printable(other) for other in get_close_matches(name, sorted(there), n=3)]
    return f"; near {printable(name)}: {', '.join(near)}" if near else ""


def _catalogue(language: str, template_dir: str | os.PathLike[str] | None) -> Language:
    files = []
    if re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*", language):
        folders = template_folders(template_dir)
        files = [path for f in folders if (path := f / "languages" / f"{language}.json").is_file()]
    if not files and language != "en":
        known = {path.stem for f in template_folders() for path in (f / "languages").glob("*.json")}
        raise SparsityReportError(
            f"no language {language!r}; there are {', '.join(sorted({'en', *known}))}, and any "
            "other with languages/<code>.json in template_dir"
        )
    plain, read = Language(), dict[str, Any](code=language)
    if language != "en":
        read["sentences"] = _english().sentences
    for path in reversed(files):
        try:
            for key, value in json.loads(path.read_text(encoding="utf-8")).items():
                if type(value) is not type(getattr(plain, key)):
                    raise ValueError(f"{key} is {value!r}")
                read[key] = {**read.get(key, {}), **value} if isinstance(value, dict) else value
        except OSError as error:
            raise SparsityReportError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise SparsityReportError(f"{path} is no catalogue: {error!r}") from error
    return Language(**read)
