"""The command line: ``sparsity-report run``, ``render``, ``diff`` and ``notebook``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsity_report import __version__
from sparsity_report.errors import SparsityReportError, printable

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from sparsity_report.counting.counts import Progress
    from sparsity_report.study.study import Comparison

app = typer.Typer(
    name="sparsity-report",
    help="Open a Transformer and see exactly what pruning does to it as Dense, Masked and CSR.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option("--out", help="Folder for everything that is written.")]
Html = Annotated[bool, typer.Option("--html/--no-html", help="report.html, self-contained.")]
Pdf = Annotated[bool, typer.Option("--pdf/--no-pdf", help="report.pdf, typeset.")]
Thesis = Annotated[
    bool,
    typer.Option("--thesis/--no-thesis", help="Figures, tables and numbers for LaTeX in thesis/."),
]
Csv = Annotated[bool, typer.Option("--csv/--no-csv", help="Tables in structural_layers/.")]
Png = Annotated[bool, typer.Option("--png/--no-png", help="Figures in figures/.")]
Language = Annotated[
    str, typer.Option(help="Of the report: en, fr, or one in --template-dir.", metavar="CODE")
]
Templates = Annotated[
    Path | None,
    typer.Option("--template-dir", help="Your own templates.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json/--no-json", help="study.json, to render again.")]


@app.command()
def run(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Hub id, transformers directory, .safetensors or .gguf file. "
            "Nothing: the built-in demo model.",
            show_default=False,
        ),
    ] = None,
    sparsity: Annotated[
        str, typer.Option(help="Share of the prunable weights to prune, 0 to 1.")
    ] = "0.3",
    out: Out = Path("results"),
    html: Html = True,
    pdf: Pdf = False,
    thesis: Thesis = False,
    csv: Csv = True,
    png: Png = True,
    json: Json = True,
    language: Language = "en",
    template_dir: Templates = None,
    name: Annotated[
        str | None, typer.Option(help="What to call the model.", show_default=False)
    ] = None,
    blacklist: Annotated[
        list[str], typer.Option(help="Modules with this word in their name are not pruned.")
    ] = ["lm_head"],  # noqa: B006 - typer copies it
    convention: Annotated[
        str, typer.Option(help="standard, or notebook: look-ups and tied heads counted again.")
    ] = "standard",
    context: Annotated[
        int | None,
        typer.Option(
            help="Positions a token attends to, to add attention's own FLOPs.", show_default=False
        ),
    ] = None,
    patterns: Annotated[
        bool,
        typer.Option(
            "--patterns/--no-patterns", help="Where in each matrix the zeros stand (reads twice)."
        ),
    ] = True,
    latency: Annotated[
        bool, typer.Option("--latency", help="Time layers and whole forward passes here.")
    ] = False,
    perplexity: Annotated[
        bool, typer.Option("--perplexity", help="Score a text, at every 10 % of sparsity, too.")
    ] = False,
    sensitivity: Annotated[
        str | None,
        typer.Option(
            help="Prune one block, group or layer at a time and score the text.",
            metavar="BY",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="The text to score; else the demo's.", show_default=False),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that count files; 0: threads of this one.")
    ] = 0,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder where counts are kept and looked up.", show_default=False),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit on the Hub.", show_default=False)
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Open PyTorch pickles (weights only).")
    ] = False,
) -> None:
    """Count a model as Dense, Masked and CSR and write the report, tables and figures."""
    level = _number(sparsity)
    _speak(ctx, language, template_dir)
    _check_writable(out)
    if sensitivity not in {None, "block", "group", "layer"}:
        raise SparsityReportError(
            f"--sensitivity must be block, group or layer, not {sensitivity!r}"
        )
    import sparsity_report as sr

    with _quiet_libraries():
        with _without_collecting():
            weights = sr.load(
                model, name=name, blacklist=blacklist, revision=revision, allow_pickle=allow_pickle
            )
        with _workers(workers) as executor, _bar("counting") as progress:
            pruning = sr.global_magnitude(
                weights, level, progress=progress, executor=executor, cache=cache
            )
        variants = (sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
        with _bar("looking for patterns") as progress:
            study = sr.compare(
                *variants,
                convention=convention,
                context=context,
                patterns=patterns,
                progress=progress if patterns else None,
            )
        if latency:
            with _bar("timing", unit="measurement") as progress:
                study = study.with_measured(latency=sr.measure_latency(variants, progress=progress))
        if perplexity:
            steps = [sr.masked(sr.global_magnitude(weights, step / 10)) for step in range(1, 10)]
            known = {variant.name for variant in variants}
            scored = [*variants, *(step for step in steps if step.name not in known)]
            with _bar("scoring", unit="token") as progress:
                study = study.with_measured(quality=sr.perplexity(scored, text, progress=progress))
        if sensitivity is not None:
            with _bar("pruning parts", unit="part") as progress:
                frame = sr.sensitivity(
                    weights, level, sensitivity, text=text, cache=cache, progress=progress
                )
                study = study.with_measured(sensitivity=frame)
        kinds = {"html": html, "pdf": pdf, "thesis": thesis, "csv": csv, "png": png, "json": json}
        _write(study, out, template_dir, **kinds)


@app.command()
def render(
    ctx: typer.Context,
    study: Annotated[Path, typer.Argument(help="study.json of an earlier run.")],
    out: Out = Path("results"),
    html: Html = True,
    pdf: Pdf = False,
    thesis: Thesis = False,
    csv: Csv = True,
    png: Png = True,
    json: Json = False,
    language: Language = "en",
    template_dir: Templates = None,
) -> None:
    """Write the report, tables and figures of a saved study again, without the model."""
    from sparsity_report.study.study import read_study

    _speak(ctx, language, template_dir)
    loaded = read_study(study)
    _check_writable(out)
    kinds = {"html": html, "pdf": pdf, "thesis": thesis, "csv": csv, "png": png, "json": json}
    _write(loaded, out, template_dir, **kinds)


@app.command()
def diff(
    ctx: typer.Context,
    before: Annotated[Path, typer.Argument(help="study.json of an earlier run.")],
    after: Annotated[Path, typer.Argument(help="study.json of a later run.")],
    html: Annotated[
        Path | None, typer.Option(help="Also write it as this .html file.", show_default=False)
    ] = None,
    language: Language = "en",
    template_dir: Templates = None,
) -> None:
    """Say what changed between two studies; the exit code is 0 for nothing, 1 for something."""
    import sparsity_report as sr

    _speak(ctx, language, template_dir)
    changed = sr.diff(before, after)
    for sentence in changed.sentences():
        print(printable(sentence))
    if html is not None:
        names = (str(before), str(after))
        sr.write_diff(changed, html, names=names, template_dir=template_dir)
    raise typer.Exit(1 if changed else 0)


@app.command()
def notebook(
    model: Annotated[
        str | None, typer.Argument(help="As for run; nothing: the demo.", show_default=False)
    ] = None,
    to: Annotated[str, typer.Option(help="html or ipynb.")] = "html",
    sparsity: Annotated[str, typer.Option(help="Share of the prunable weights to prune.")] = "0.3",
    out: Out = Path("results"),
    hide_inputs: Annotated[bool, typer.Option("--hide-inputs", help="Leave the code out.")] = False,
    name: Annotated[
        str, typer.Option("--notebook", help="structural_csr_analysis, thesis_figures, or a path.")
    ] = "structural_csr_analysis",
    template_dir: Templates = None,
) -> None:
    """Execute a notebook on a model and export it with its outputs."""
    level = _number(sparsity)
    _check_writable(out)
    import sparsity_report as sr

    target = out / f"{Path(name).stem}.{to}"
    sr.write_notebook(
        model,
        target,
        notebook=name,
        sparsity=level,
        hide_inputs=hide_inputs,
        template_dir=template_dir,
    )
    print(f"Written to {target}")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sparsity-report {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; bad input ends with one line and exit code 2."""
    try:
        app()
    except SparsityReportError as error:
        print(f"sparsity-report: {error}", file=sys.stderr)
        sys.exit(2)


def _speak(ctx: typer.Context, language: str, template_dir: Path | None) -> None:
    """Say everything this command says in one language."""
    from sparsity_report.words.language import speaking

    ctx.with_resource(speaking(language, template_dir))


def _write(
    study: Comparison,
    out: Path,
    template_dir: Path | None,
    *,
    html: bool,
    pdf: bool,
    thesis: bool,
    csv: bool,
    png: bool,
    json: bool,
) -> None:
    import sparsity_report as sr

    if html or pdf or thesis or png:
        _import_altair()
    steps: list[tuple[str, Callable[[], object]]] = []
    if json:
        steps.append(("study.json", lambda: study.save(out / "study.json")))
    if csv:
        steps.append(
            ("structural_layers/*.csv", lambda: sr.write_csv(study, out / "structural_layers"))
        )
    if png:
        steps.append(("figures/*.png", lambda: sr.write_figures(study, out / "figures")))
    if html:
        report = partial(sr.write_report, study, out / "report.html", template_dir=template_dir)
        steps.append(("report.html", report))
    if pdf:
        paper = partial(sr.write_report, study, out / "report.pdf", template_dir=template_dir)
        steps.append(("report.pdf", paper))
    if thesis:
        kit = partial(sr.write_thesis, study, out / "thesis", template_dir=template_dir)
        steps.append(("thesis/*", kit))
    with _bar("writing", unit="file") as progress:
        for number, (label, step) in enumerate(steps, 1):
            progress(number - 1, len(steps), label)
            step()
            progress(number, len(steps), label)
    for sentence in sr.summarize(study)[:3]:
        print(sentence)
    print(f"Written to {out}: {', '.join(label for label, _ in steps) or 'nothing'}")


def _import_altair() -> None:
    # jsonschema, which altair imports, spends a second on this one's grammars; nothing uses them.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    with _without_collecting():
        import altair  # noqa: F401


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Import libraries a fifth faster: no garbage is looked for among what is there to stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _bar(what: str, unit: str = "B") -> Iterator[Progress]:
    """Show progress on a terminal; nothing in a pipe."""
    from tqdm.auto import tqdm

    with tqdm(
        desc=what, unit=unit, unit_scale=unit == "B", unit_divisor=1000, disable=None, leave=False
    ) as bar:

        def show(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.set_postfix_str(name[-40:], refresh=False)
            bar.update(done - bar.n)

        yield show


@contextmanager
def _workers(number: int) -> Iterator[Executor | None]:
    if number == 0:
        yield None
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # A fork would copy the threads of torch in whatever state they are.
    with ProcessPoolExecutor(number, mp_context=get_context("spawn")) as executor:
        yield executor


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the libraries' own advice out of the way of our few lines."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SparsityReportError(
            f"--sparsity must be a number from 0 to 1, not {text!r}; 30 % is 0.3"
        ) from None


def _check_writable(out: Path) -> None:
    """Refuse an impossible folder before minutes of counting, not after."""
    if out.exists() and not out.is_dir():
        raise SparsityReportError(f"--out {out} exists and is not a folder; choose another")
    from sparsity_report.files import check_folder

    check_folder(out)
