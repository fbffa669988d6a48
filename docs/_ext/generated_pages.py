"""Parts of pages that come from the package: commands, limits and runtimes.

A page names its part in a comment such as ``% generated: commands``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from sparsity_report.cli.application import app as program
from sparsity_report.cli.options import PANELS
from sparsity_report.sparse.runtime_support import LAYOUTS, LOOKED_AT, RUNTIMES, Support
from sparsity_report.untrusted import limits as limits_module
from sparsity_report.words.display_names import display_name

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

_PART = re.compile(r"^% generated: (\w+)$", re.MULTILINE)
_LIMIT = re.compile(r"((?:^#:.*\n)+)^([A-Z_]+) = (.+)$", re.MULTILINE)
_DATE = "[%s]{.nowrap}"
_CODE = re.compile(r"(\d+) ([^;,.]+(?:, or [^;.]+)?)")


def commands() -> str:
    """Return a section for each command: usage, arguments, options by panel, exit codes."""
    group: Any = get_command(program)
    context = group.make_context("sparsity-report", ["run"])
    return "\n".join(_command(name, each, context) for name, each in group.commands.items())


def summary() -> str:
    """Return a table of the commands with the first sentence of their help."""
    group: Any = get_command(program)
    rows = ["| command | result |", "|---|---|"]
    for name, command in group.commands.items():
        sentence = re.split(r"(?<=[.])\s", command.help)[0]
        rows.append(f"| [`{name}`](#{name}) | {_marked(sentence)} |")
    return "\n".join(rows)


def _command(name: str, command: Any, parent: Any) -> str:
    context = type(parent)(command, info_name=name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    usage = re.sub(r"\{(\w+)\}", lambda match: match[1].upper(), usage)
    lines = [f"({name})=", f"## {name}\n", f"{_marked(command.help or '')}\n"]
    lines += [f"```text\nsparsity-report {name} {usage}\n```\n"]
    lines += [f"```{{program}} sparsity-report {name}\n```\n"]
    panels: dict[str, list[str]] = {title: [] for title in ("Arguments", *PANELS)}
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        panel = getattr(parameter, "rich_help_panel", None) or "Arguments"
        panels[panel].append(_parameter(parameter, *parameter.get_help_record(context)))
    for panel, shown in panels.items():
        lines += [f"**{panel}**\n", *shown] if shown else []
    return "\n".join([*lines, f"Exit codes: {_codes(name)}; see [Exit codes](#exit-codes).\n"])


def _parameter(parameter: Any, names: str, text: str) -> str:
    """Return an option with its help, or an argument."""
    help_text = _marked(re.sub(r"\s+", " ", text).strip())
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`\n: {help_text}\n"
    return f"````{{option}} {names.replace(' / ', ', ')}\n{help_text}\n````\n"


def _marked(text: str) -> str:
    """Return a help text with the options and the quoted values in it as code."""
    return re.sub(r"(?<![`\w])(--[a-z][a-z-]*)|\"([^\"]+)\"", lambda m: f"`{m[1] or m[2]}`", text)


def _all_codes() -> dict[str, str]:
    return dict(_CODE.findall(str(program.info.epilog)))


def _codes(name: str) -> str:
    """Return the exit codes of a command: those that name no command, and those that name it."""
    group: Any = get_command(program)
    named = {code: {*group.commands} & {*re.findall(r"\w+", t)} for code, t in _all_codes().items()}
    return ", ".join(code for code, names in named.items() if not names or name in names)


def exit_codes() -> str:
    """Return the exit codes of all commands as a table."""
    rows = (f"| {code} | {text.strip()} |" for code, text in _all_codes().items())
    return "\n".join(["| code | meaning |", "|---:|---|", *rows])


def limits() -> str:
    """Return the limits on sizes that files announce, with the reasons of the module's comments."""
    entries = []
    for comment, name, _ in _LIMIT.findall(Path(limits_module.__file__).read_text("utf-8")):
        reason = " ".join(line.removeprefix("#:").strip() for line in comment.splitlines())
        entries.append(f"`{name}` = {getattr(limits_module, name):,}\n: {reason}\n")
    return "\n".join(entries)


def runtimes() -> str:
    """Return each runtime with its verdict on each layout, and the version, source and date."""
    return "\n".join([f"The table was last read through on {LOOKED_AT}.\n", *_runtimes()])


def _runtimes() -> Iterator[str]:
    for runtime in RUNTIMES.values():
        yield f"## {runtime.name}\n"
        if runtime.ended:
            yield f"Nobody has maintained this runtime since {runtime.ended}.\n"
        yield "| layout | verdict | version | source, read on |\n|---|---|---|---|"
        yield from (_runtime_row(runtime.cells[layout]) for layout in LAYOUTS)
        yield ""


def _runtime_row(cell: Support) -> str:
    verdict = display_name("runtime_verdict", cell.verdict)
    note = f": {display_name('runtime_note', cell.note)}" if cell.note else ""
    source = f"[{_short(cell.source)}]({cell.source}), {_DATE % cell.looked_at}"
    layout = display_name("runtime_layout", cell.layout)
    return (
        f"| {layout} | {verdict}{note} | {cell.version or '—'} | {source if cell.source else '—'} |"
    )


def _short(address: str | None) -> str:
    """Return the end of an address that names it: ``vllm#11563``, or host and file."""
    address = address or ""
    if match := re.fullmatch(r"https://github\.com/[^/]+/([^/]+)/(?:pull|issues)/(\d+)", address):
        return f"{match[1]}#{match[2]}"
    host, _, path = address.removeprefix("https://").partition("/")
    return f"{host}: {path.rstrip('/').rpartition('/')[2]}" if path.strip("/") else host


PARTS = {each.__name__: each for each in (commands, exit_codes, limits, runtimes, summary)}


def fill(app: Sphinx, name: str, source: list[str]) -> None:  # noqa: ARG001
    """Replace the comments of a page by the parts that they name."""
    source[0] = _PART.sub(lambda match: PARTS[match[1]](), source[0])


def outdated(app: Sphinx, env: Any, *_: Any) -> list[str]:  # noqa: ARG001
    """Return the pages with generated parts, which follow the package and not their files."""
    return [
        name
        for name in env.found_docs
        if Path(path := env.doc2path(name)).suffix == ".md" and _PART.search(Path(path).read_text())
    ]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Connect the parts to the reading of pages."""
    app.connect("source-read", fill)
    app.connect("env-get-outdated", outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
