"""The Jinja2 environment of the templates: their filters, and errors of faulty ones."""

import os
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, select_autoescape
from markupsafe import Markup

from sparsity_report.draw.theme import font_face_css
from sparsity_report.errors import SparsityReportError, legible, printable
from sparsity_report.report.tables.html import broken, to_html
from sparsity_report.report.template_files import template_folders
from sparsity_report.untrusted.display_text import clip
from sparsity_report.viewer.embed import asset, embed
from sparsity_report.words import number_format
from sparsity_report.words.sentences import say

# Errors of Jinja2 and of expressions in templates.
_FAULTS = (
    TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError,
    RecursionError,
)  # fmt: skip
# A number with its sign or unit, and a threshold.
_QUANTITY = re.compile(
    r"\|w\|\s≤\s\S+\b|(?:&[lg]t;\s)?\d[\d.,\u202f]*\s(?:%|×|(?:[kMGTP]?(?:B|FLOPs?)|[kMGTP])\b)"
)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_BEFORE_UNIT = re.compile(r"(?<=\d)\s(?=\D+$)")
# Words in right-to-left scripts, beside which numbers would change places.
_RIGHT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff"
_FROM_THE_RIGHT = re.compile(rf"[{_RIGHT}]+(?:[\W_]*[{_RIGHT}]+)*")

# Filters that are formats of numbers.
_NUMBERS = ("count", "percent", "scaled", "times")


def render(templates: Environment, name: str, variables: Mapping[str, Any], doing: str) -> str:
    """Return the text of a template; `doing` is the task in the error of a faulty one."""
    with blaming(doing):
        return templates.get_template(name).render(variables)


@contextmanager
def blaming(doing: str) -> Iterator[None]:
    """Turn errors of a template into one that names the task, the file and the line."""
    try:
        yield
    except SparsityReportError:
        raise
    except _FAULTS as error:
        file, line = getattr(error, "filename", None), getattr(error, "lineno", None)
        if file is None:
            # Jinja2 rewrites tracebacks to lines of templates.
            frames = traceback.extract_tb(error.__traceback__)
            lines = [(frame.filename, frame.lineno) for frame in frames]
            file, line = next((at for at in lines[::-1] if at[0].endswith(".j2")), (None, None))
        if file is None and not isinstance(error, TemplateError):
            raise  # no template's fault
        where = f"{printable(str(file), 500)}, line {line}: " if file else ""
        message = printable(f"{type(error).__name__}: {error}", 500)
        raise SparsityReportError(
            f"cannot {doing}: {where}{message}; check template_dir"
        ) from error


def environment(template_dir: str | os.PathLike[str] | None = None) -> Environment:
    """Return the Jinja2 environment: the user's templates first, then the package's.

    HTML templates escape every value and spell out invisible characters. An undefined value is an
    error.

    Examples
    --------
    >>> environment().from_string("{{ 1234567 | count }} {{ none | percent }}").render()
    '1\u202f234\u202f567 –'
    """
    templates = Environment(
        loader=FileSystemLoader(template_folders(template_dir)),
        autoescape=select_autoescape(["html", "html.j2"]),
        undefined=StrictUndefined,
        finalize=_legible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        **{name: getattr(number_format, name) for name in _NUMBERS},
        "clip": lambda text, limit=80: clip(text, limit),
        "unbroken": _unbroken,
        "table": to_html,
    }
    templates.globals |= {
        "_": say,
        "font_faces": lambda: Markup(font_face_css()),
        "page_script": lambda: Markup(asset("bundle/page.js")),
        "embed": lambda payload, still: Markup(embed(payload, still)),
    }
    return templates


def _legible(value: Any) -> Any:
    return legible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _unbroken(sentence: str) -> Markup:
    """Keep numbers on one line with their signs and units, and isolate right-to-left names.

    A thin space separates number and unit, as in tables. Options of the command line are code.
    """
    text = _FROM_THE_RIGHT.sub(r"<bdi>\g<0></bdi>", str(broken(legible(sentence))))
    return Markup(_OPTION.sub(r"<code>\g<0></code>", _QUANTITY.sub(_unbroken_quantity, text)))


def _unbroken_quantity(quantity: re.Match[str]) -> str:
    thin = _BEFORE_UNIT.sub(number_format.THIN, quantity[0])
    return f'<span class="unbroken">{thin}</span>'
