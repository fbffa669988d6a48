"""Languages: the catalogue of phrases by key, and the signs of numbers.

A catalogue is a file ``languages/<code>.json`` among the templates, the package's own or the
user's. A phrase that a catalogue lacks is written in English.
"""

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
    """A catalogue of phrases, and the signs of numbers.

    Attributes
    ----------
    code : str
        Language code of HTML and PDF, such as ``"fr"``.
    decimal, thousands, space, conjunction : str
        Decimal sign; separator of thousands; space before a unit or %; word before the last item
        of a list.
    singular_below_two : bool
        True if 0 and 1.5 are singular, as in French; else only 1 is.
    units : mapping of str to str
        Names of ``B`` and ``FLOPs``, if the language has others.
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
    r"""Use a language for all text within a block.

    Parameters
    ----------
    language : str or Language
        ``"en"``, ``"fr"``, the code of another file ``languages/<language>.json``, or a language
        from an earlier block.
    template_dir : path-like, optional
        Folder of the user's catalogues, which extend and override those of the package.

    Yields
    ------
    Language

    Raises
    ------
    SparsityReportError
        The language has no catalogue, or a catalogue cannot be read.

    Examples
    --------
    >>> from sparsity_report.words.sentences import say
    >>> with speaking("fr"):
    ...     say("finding.zeros_of_group", group="MLP", share=0.3)
    '30,0\xa0% (MLP)'
    """
    before = _SPOKEN.set(
        language if isinstance(language, Language) else _catalogue(language, template_dir)
    )
    try:
        yield spoken()
    finally:
        _SPOKEN.reset(before)


def template_folders(template_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders of templates and catalogues, the user's first."""
    folders = shipped("templates")
    if template_dir is None:
        return folders
    folder = Path(template_dir)
    if not folder.is_dir():
        near = _near(folder.name, _names(folder.parent))
        raise SparsityReportError(f"template_dir {printable(str(folder))} is not a folder{near}")
    known = {path.relative_to(root) for root in folders for path in root.rglob("*.*")}
    is_known = any((folder / path).is_file() for path in known)
    # The template of a section has the key of the section as its name.
    sections = [*(folder / "sections").glob("*.html.j2"), *(folder / "typst").glob("*.typ.j2")]
    if not (is_known or _catalogues(folder) or sections):
        names = {*map(str, known), *(part for path in known for part in path.parts)}
        near = "".join(_near(name, names) for name in _names(folder)[:3])
        raise SparsityReportError(
            f"template_dir {printable(str(folder))} holds no template or catalogue; name its files "
            f"as in the package, such as report.html.j2 or languages/fr.json{near}"
        )
    return [folder, *folders]


def template_text(name: str, template_dir: str | os.PathLike[str] | None = None) -> str:
    """Return the text of a template, the user's or else the package's."""
    files = (folder / name for folder in template_folders(template_dir))
    return next(file for file in files if file.is_file()).read_text(encoding="utf-8")


def _catalogues(folder: Path) -> list[Path]:
    return list((folder / "languages").glob("*.json"))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _near(name: str, known: Iterable[str]) -> str:
    """Suggest close matches for a misspelled name; empty if there are none."""
    near = [printable(other) for other in get_close_matches(name, sorted(known), n=3)]
    return f"; near {printable(name)}: {', '.join(near)}" if near else ""


def _catalogue(language: str, template_dir: str | os.PathLike[str] | None) -> Language:
    files = []
    if re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*", language):
        folders = template_folders(template_dir)
        files = [path for f in folders if (path := f / "languages" / f"{language}.json").is_file()]
    if not files:
        known = {path.stem for f in template_folders() for path in _catalogues(f)}
        raise SparsityReportError(
            f"no language {language!r}; there are {', '.join(sorted(known))}; add another "
            "as languages/<code>.json in template_dir"
        )
    default, values = Language(), dict[str, Any](code=language)
    if language != "en":
        values["sentences"] = _english().sentences
    for path in reversed(files):
        try:
            for key, value in json.loads(path.read_text(encoding="utf-8")).items():
                if type(value) is not type(getattr(default, key)):
                    raise ValueError(f"{key} is {value!r}")
                old = values.get(key, {})
                values[key] = {**old, **value} if isinstance(value, dict) else value
        except OSError as error:
            raise SparsityReportError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise SparsityReportError(
                f"{path} is not a catalogue: {error!r}; compare it with languages/fr.json"
            ) from error
    return Language(**values)
