"""The command line: ``sparsity-report run``, ``render``, ``diff`` and ``notebook``."""

from __future__ import annotations

import gc
import inspect
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_type_hints

import typer

from sparsity_report import __version__
from sparsity_report.errors import SparsityReportError, legible, printable, within_memory
from sparsity_report.files.disk import file_digest
from sparsity_report.files.folders import check_folder
from sparsity_report.files.sets import together
from sparsity_report.files.stopping import STOPPING

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from sparsity_report.counting.counts import Progress
    from sparsity_report.counting.cuts import Pruning
    from sparsity_report.counting.entries import Cache
    from sparsity_report.measure.clock import Clock
    from sparsity_report.measure.grid import Grid
    from sparsity_report.study.study import Comparison
    from sparsity_report.study.variants import Variant

app = typer.Typer(
    name="sparsity-report",
    help="Open a Transformer and see exactly what pruning does to it as Dense, Masked and CSR.",
    epilog="Exit codes: 0 done; 1 diff found changes; 2 bad input, or something could not be "
    "written; 130 Ctrl-C, 143 SIGTERM.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# Wrong options and arguments; typer does not export what they have in common.
_UsageError: Any = typer.BadParameter.__base__

# The signal of a pipe that nobody reads; Windows has none, and no such pipes.
_PIPE = 13

# What to do where memory runs out.
_LESS = "give it more, or leave out what takes most: --no-patterns, --no-png, --no-html, --workers"

Out = Annotated[Path, typer.Option("--out", help="Folder for everything that is written.")]
Json = Annotated[bool, typer.Option(help="study.json, to render again.")]
Language = Annotated[
    str, typer.Option(help="Of the report: en, fr, or one in --template-dir.", metavar="CODE")
]
Templates = Annotated[Path | None, typer.Option("--template-dir", help="Your own templates.")]


Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse a study that was edited, or is too old to tell."),
]


@dataclass(frozen=True)
class Outputs:
    """What a command writes, and how."""

    out: Out = Path("results")
    html: Annotated[bool, typer.Option(help="report.html, self-contained.")] = True
    pdf: Annotated[bool, typer.Option(help="report.pdf, typeset.")] = False
    thesis: Annotated[
        bool, typer.Option(help="Figures, tables and numbers for LaTeX in thesis/.")
    ] = False
    csv: Annotated[bool, typer.Option(help="Tables in structural_layers/.")] = True
    png: Annotated[bool, typer.Option(help="Figures in figures/.")] = True
    json: Json = True
    language: Language = "en"
    template_dir: Templates = None

    @property
    def drawn(self) -> bool:
        """Whether there are charts to draw."""
        return self.html or self.pdf or self.thesis or self.png


@dataclass(frozen=True)
class OutputsAgain(Outputs):
    """What is written of a study that lies in a file already."""

    json: Json = False


@dataclass(frozen=True)
class Choice:
    """What is pruned by which policies, and what it is compared with."""

    sparsity: Annotated[
        list[str],
        typer.Option(help="Share of the prunable weights to prune, 0 to 1; several as 0.3,0.5."),
    ] = field(default_factory=lambda: ["0.3"])
    policy: Annotated[
        list[str],
        typer.Option(
            help="How they are chosen: magnitude, layerwise, wanda, owl, random, 2:4, wanda-2:4; "
            "several as magnitude,wanda."
        ),
    ] = field(default_factory=lambda: ["magnitude"])
    calibration: Annotated[
        str | None,
        typer.Option(
            help="File to calibrate wanda and owl on, or the text itself; else what comes along.",
            metavar="TEXT",
        ),
    ] = None
    also: Annotated[
        list[str],
        typer.Option(help="A model to compare as it is, pruned elsewhere.", metavar="MODEL"),
    ] = field(default_factory=list)


@dataclass(frozen=True)
class Analysis:
    """How a model is opened, counted and measured."""

    name: Annotated[str | None, typer.Option(help="What to call the model.")] = None
    blacklist: Annotated[
        list[str], typer.Option(help="Modules with this word in their name are not pruned.")
    ] = field(default_factory=lambda: ["lm_head"])
    convention: Annotated[
        str, typer.Option(help="standard, or notebook: look-ups and tied heads counted again.")
    ] = "standard"
    context: Annotated[
        int | None, typer.Option(help="Positions a token attends to, to add attention's own FLOPs.")
    ] = None
    patterns: Annotated[
        bool, typer.Option(help="Where in each matrix the zeros stand (reads twice).")
    ] = True
    zstd: Annotated[
        bool, typer.Option("--zstd", help="What the weights take as a compressed file, too (slow).")
    ] = False
    latency: Annotated[
        bool, typer.Option("--latency", help="Time layers and whole forward passes here.")
    ] = False
    cold: Annotated[
        bool | None,
        typer.Option(
            "--cold/--warm", help="Time layers from memory alone, or from the cache; else both."
        ),
    ] = None
    budget: Annotated[
        float | None,
        typer.Option(help="Seconds that --latency may take, about; else 60.", metavar="SECONDS"),
    ] = None
    precision: Annotated[
        float | None,
        typer.Option(
            help="Part of itself to which --latency times a ratio, if it can; else 0.02.",
            metavar="SHARE",
        ),
    ] = None
    perplexity: Annotated[
        bool,
        typer.Option(
            "--perplexity", help="Score a text, of one policy and level at every 10 % too."
        ),
    ] = False
    sensitivity: Annotated[
        str | None,
        typer.Option(
            help="Prune one block, group or layer at a time and score the text.", metavar="BY"
        ),
    ] = None
    text: Annotated[
        str | None, typer.Option(help="File to score, or the text itself; else the demo's.")
    ] = None
    protocol: Annotated[
        str | None,
        typer.Option(
            help="How the text is scored: sliding, or wikitext2-2048, wikitext2-max, c4-256x2048, "
            "ptb with the text of that name.",
            metavar="NAME",
        ),
    ] = None
    prompt: Annotated[
        str | None, typer.Option(help="Let each variant continue this text, 40 tokens.")
    ] = None
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that count files; 0: threads of this one.")
    ] = 0
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder where counts are kept; looked up by a file's length, time and samples."
        ),
    ] = None
    cache_verify: Annotated[
        bool,
        typer.Option(
            "--cache-verify", help="Count everything all the same and say where --cache was wrong."
        ),
    ] = False
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None
    subfolder: Annotated[
        str | None, typer.Option(help="The model's folder in the repository or directory.")
    ] = None
    file: Annotated[
        str | None, typer.Option(help="The file to open where there are several models.")
    ] = None
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Open PyTorch pickles (weights only).")
    ] = False
    base: Annotated[
        str | None, typer.Option(help="The model of a LoRA adapter, to count the two merged.")
    ] = None
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Count a Hub model over the network, without a copy here."),
    ] = False


@dataclass(frozen=True)
class Export:
    """Which notebook is executed, and what becomes of it."""

    to: Annotated[str, typer.Option(help="html or ipynb.")] = "html"
    sparsity: Annotated[str, typer.Option(help="Share of the prunable weights to prune.")] = "0.3"
    out: Out = Path("results")
    hide_inputs: Annotated[bool, typer.Option("--hide-inputs", help="Leave the code out.")] = False
    notebook: Annotated[
        str, typer.Option(help="structural_csr_analysis, thesis_figures, policies, or a path.")
    ] = "structural_csr_analysis"
    template_dir: Templates = None


def _spread(command: Callable[..., None]) -> Callable[..., None]:
    """Show typer the fields of a command's values as options of the command."""
    parameters: list[inspect.Parameter] = []
    values: dict[str, Any] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        value = parameter.default
        if not is_dataclass(value):
            parameters.append(parameter)
            continue
        values[name] = value
        kinds = get_type_hints(type(value), include_extras=True)
        for option, default in vars(value).items():
            parameters.append(
                parameter.replace(name=option, default=default, annotation=kinds[option])
            )

    def spread(**given: Any) -> None:
        for name, value in values.items():
            given[name] = replace(value, **{option: given.pop(option) for option in vars(value)})
        command(**given)

    spread.__doc__, spread.__name__ = command.__doc__, command.__name__
    spread.__annotations__ = {each.name: each.annotation for each in parameters}
    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return spread


@app.command()
@_spread
def run(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Hub id, transformers directory, .safetensors or .gguf file. "
            "Nothing: the built-in demo model.",
        ),
    ] = None,
    choice: Choice = Choice(),
    outputs: Outputs = Outputs(),
    analysis: Analysis = Analysis(),
) -> None:
    """Count a model as Dense, Masked and CSR and write the report, tables and figures.

    Of several prunings, every --policy at every --sparsity, it compares Dense and Masked.
    """
    from sparsity_report.measure.grid import Grid

    grid = Grid.of(choice.policy, choice.sparsity)
    _speak(ctx, outputs.language, outputs.template_dir)
    _check_writable(outputs.out)
    _check_drawable(outputs)
    if analysis.sensitivity not in {None, "block", "group", "layer"}:
        raise SparsityReportError(
            f"--sensitivity must be block, group or layer, not {analysis.sensitivity!r}"
        )
    _clock(analysis)
    scored = analysis.perplexity or analysis.sensitivity
    if analysis.stream and (analysis.latency or scored or analysis.prompt is not None):
        raise SparsityReportError(
            "--stream keeps no copy of a model, so nothing can be run: leave it out, or --latency, "
            "--perplexity, --sensitivity and --prompt"
        )
    if analysis.stream and grid.calibrates:
        raise SparsityReportError(
            "--stream keeps no copy of a model, so nothing can be run: leave it out, or the "
            "policies wanda and owl, which run it on a text"
        )
    if choice.calibration is not None and not grid.calibrates:
        raise SparsityReportError("--calibration is read by the policies wanda and owl alone")
    if analysis.cache_verify and analysis.cache is None:
        raise SparsityReportError("--cache-verify needs --cache, the folder to verify")
    if analysis.protocol is not None and not scored:
        raise SparsityReportError("--protocol needs --perplexity or --sensitivity")
    if analysis.zstd:
        from sparsity_report.study.compressed import check_zstd

        check_zstd()
    if analysis.text is not None or scored:
        from sparsity_report.measure.protocols import Passages

        # Refused before minutes of counting, not after.
        Passages({"text": analysis.text, "protocol": analysis.protocol})
    if choice.calibration is not None:
        from sparsity_report.measure.texts import names_file

        names_file(choice.calibration)
    with _quiet_libraries():
        study, refused = _studied(_pruned(model, choice, grid, analysis), analysis)
        _remark(study)
        _write(study, outputs)
    if refused:
        raise typer.Exit(2)


@app.command()
@_spread
def render(
    ctx: typer.Context,
    study: Annotated[Path, typer.Argument(help="study.json of an earlier run.")],
    strict: Strict = False,
    outputs: OutputsAgain = OutputsAgain(),
) -> None:
    """Write the report, tables and figures of a saved study again, without the model."""
    import sparsity_report as sr

    _speak(ctx, outputs.language, outputs.template_dir)
    _check_writable(outputs.out)  # first: it may put an older study back
    _check_drawable(outputs)
    loaded = sr.read_study(study, strict=strict)
    _write(loaded, outputs, file_digest(study.resolve()) or None)


@app.command()
def diff(
    ctx: typer.Context,
    before: Annotated[Path, typer.Argument(help="study.json of an earlier run.")],
    after: Annotated[Path, typer.Argument(help="study.json of a later run.")],
    html: Annotated[Path | None, typer.Option(help="Also write it as this .html file.")] = None,
    strict: Strict = False,
    language: Language = "en",
    template_dir: Templates = None,
) -> None:
    """Say what changed between two studies; the exit code is 0 for nothing, 1 for something."""
    import sparsity_report as sr

    _speak(ctx, language, template_dir)
    changed = sr.diff(*(sr.read_study(study, strict=strict) for study in (before, after)))
    for sentence in changed.sentences():
        _tell(sentence)
    if html is not None:
        names = (str(before), str(after))
        sr.write_diff(changed, html, names=names, template_dir=template_dir)
    raise typer.Exit(1 if changed else 0)


@app.command()
@_spread
def notebook(
    model: Annotated[str | None, typer.Argument(help="As for run; nothing: the demo.")] = None,
    export: Export = Export(),
) -> None:
    """Execute a notebook on a model and export it with its outputs."""
    level = _number(export.sparsity)
    _check_writable(export.out)
    import sparsity_report as sr

    target = export.out / f"{Path(export.notebook).stem}.{export.to}"
    sr.write_notebook(
        model,
        target,
        notebook=export.notebook,
        sparsity=level,
        hide_inputs=export.hide_inputs,
        template_dir=export.template_dir,
    )
    _tell(f"Written to {target}")


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
    code = 0
    with _stoppable():
        try:
            try:
                with within_memory("this run", _LESS):
                    code = app(standalone_mode=False) or 0
            finally:
                _flush()
        except SparsityReportError as error:
            _complain(str(error))
            code = 2
        except _UsageError as error:
            said = io.StringIO()
            error.show(said)  # with what was given, which may be the name of a file
            for line in said.getvalue().rstrip("\n").split("\n"):
                _tell(line, sys.stderr)
            code = error.exit_code
        except OSError as error:  # of the machine, where nothing more is known about it
            _complain(f"{error.filename or 'the system'}: {error.strerror or error}")
            code = 2
        except _Stopped as stopped:
            (number,) = stopped.args
            if number != _PIPE:
                _complain(f"stopped by {signal.Signals(number).name}")
            code = 128 + number
    sys.exit(code)


class _Stopped(BaseException):
    """Somebody wants this process to stop; holds the number of the signal."""


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raise where a signal comes, so that all that is under way is undone; at the end, just end."""

    def stop(number: int, _: object) -> None:
        raise _Stopped(number)

    heard = []
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
                signal.signal(number, stop)
                heard.append(number)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def _flush() -> None:
    """Print what waits to be printed, while it can still be said that it cannot be."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # Python tries once more when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise _Stopped(_PIPE) from error
        raise SparsityReportError(f"cannot print: {error.strerror}") from error


def _complain(text: str) -> None:
    with suppress(OSError):  # nobody reads it
        _tell(f"sparsity-report: {text}", sys.stderr)


def _tell(text: str, stream: TextIO | None = None) -> None:
    """Print a line: no name moves the terminal, and what its encoding lacks is spelled out."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(legible(text).encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _clock(analysis: Analysis) -> Clock | None:
    """Return how things are timed; None where nothing is."""
    names = ("cold", "budget", "precision")
    told = {name: value for name in names if (value := getattr(analysis, name)) is not None}
    if told and not analysis.latency:
        option = "--cold and --warm need" if "cold" in told else f"--{next(iter(told))} needs"
        raise SparsityReportError(f"{option} --latency: nothing else is timed")
    if not analysis.latency:
        return None
    from sparsity_report.measure.clock import Clock

    return Clock(**told)


def _speak(ctx: typer.Context, language: str, template_dir: Path | None) -> None:
    """Say everything this command says in one language."""
    import sparsity_report as sr

    ctx.with_resource(sr.speaking(language, template_dir))


@dataclass(frozen=True)
class Compared:
    """What a run compares.

    Attributes
    ----------
    variants : tuple of Variant
    prunings : tuple of Pruning
    steps : callable
        Gives the prunings at every tenth of sparsity, where there is one policy with levels.
    """

    variants: tuple[Variant, ...]
    prunings: tuple[Pruning, ...]
    steps: Callable[[], Iterable[Pruning]]


def _pruned(model: str | None, choice: Choice, grid: Grid, analysis: Analysis) -> Compared:
    """Open a model and prune it by each policy at each level."""
    import sparsity_report as sr
    from sparsity_report.counting.counts import count_weights

    with _without_collecting():
        weights = sr.load(
            model,
            name=analysis.name,
            blacklist=analysis.blacklist,
            revision=analysis.revision,
            subfolder=analysis.subfolder,
            file=analysis.file,
            allow_pickle=analysis.allow_pickle,
            base=analysis.base,
            stream=analysis.stream,
        )
    others = _others(choice.also, analysis)
    calibration = None
    if grid.calibrates:
        with _bar("calibrating", unit="window") as progress:
            calibration = sr.calibrate(weights, choice.calibration, progress=progress)
    cache = _cache(analysis)
    with _workers(analysis.workers) as executor:
        with _bar("counting") as progress:
            count_weights(weights, progress, executor=executor, cache=cache)
        with _bar("pruning") as progress:
            prunings = tuple(
                grid.prunings(
                    weights, calibration, progress=progress, executor=executor, cache=cache
                )
            )
    variants = [sr.dense(weights), *map(sr.masked, prunings)]
    if len(prunings) == 1:
        variants.append(sr.csr(prunings[0]))

    def steps() -> Iterable[Pruning]:
        tenths = replace(grid, levels=tuple(step / 10 for step in range(1, 10)))
        return tenths.prunings(weights, calibration) if len(tenths) == 9 else ()

    return Compared((*variants, *others), prunings, steps)


def _others(also: list[str], analysis: Analysis) -> list[Variant]:
    """Open models that others have pruned, each under a name that no other has."""
    import sparsity_report as sr

    names = [_called(each) for each in also]
    return [
        sr.dense(
            sr.load(each, blacklist=analysis.blacklist, allow_pickle=analysis.allow_pickle),
            name=name if names.count(name) == 1 else each,
        )
        for each, name in zip(also, names, strict=True)
    ]


def _called(model: str) -> str:
    """Name a model by its folder, its file, or the last part of its Hub id."""
    path = Path(model)
    if not path.exists():
        return path.name
    path = path.resolve()
    if path.name.startswith("model."):
        return path.parent.name
    return path.stem if path.is_file() else path.name


def _cache(analysis: Analysis) -> Cache | None:
    import sparsity_report as sr

    if analysis.cache is None:
        return None
    return sr.Cache(analysis.cache, verify=analysis.cache_verify)


def _studied(compared: Compared, analysis: Analysis) -> tuple[Comparison, bool]:
    """Compare the variants and measure what was asked for; whether some of it was refused."""
    import sparsity_report as sr

    variants = compared.variants
    with _bar("looking for patterns") as progress:
        study = sr.compare(
            *variants,
            convention=analysis.convention,
            context=analysis.context,
            patterns=analysis.patterns,
            zstd=analysis.zstd,
            progress=progress if analysis.patterns or analysis.zstd else None,
        )
    if analysis.latency:
        with _bar("timing", unit="measurement") as progress:
            times = sr.measure_latency(variants, clock=_clock(analysis), progress=progress)
        study = study.with_measured(latency=times)
    refused = False
    for asked, measure in (
        (analysis.perplexity, _with_quality),
        (analysis.sensitivity is not None, _with_sensitivity),
        (analysis.prompt is not None, _with_continuations),
    ):
        if asked:
            study, wrong = _unless_refused(measure, study, compared, analysis)
            refused |= wrong
    return study, refused


def _unless_refused(
    measure: Callable[[Comparison, Compared, Analysis], Comparison],
    study: Comparison,
    compared: Compared,
    analysis: Analysis,
) -> tuple[Comparison, bool]:
    """Measure what may be refused; then all else is written, and says why it is not there."""
    from sparsity_report.measure.protocols import NoScoreError

    try:
        return measure(study, compared, analysis), False
    except SparsityReportError as error:
        # What a model does not have is nobody's mistake.
        wrong = not isinstance(error, NoScoreError)
        if str(error) in study.notes:
            return study, wrong
        _complain(str(error))
        return replace(study, notes=(*study.notes, str(error))), wrong


def _with_quality(study: Comparison, compared: Compared, analysis: Analysis) -> Comparison:
    """Score a text with the variants, and at every tenth of sparsity."""
    import sparsity_report as sr

    steps = map(sr.masked, compared.steps())
    known = {variant.name for variant in compared.variants}
    scored = [*compared.variants, *(step for step in steps if step.name not in known)]
    with _bar("scoring", unit="token") as progress:
        quality = sr.perplexity(
            scored, analysis.text, protocol=analysis.protocol, progress=progress
        )
    return study.with_measured(quality=quality)


def _with_sensitivity(study: Comparison, compared: Compared, analysis: Analysis) -> Comparison:
    """Score a text with one part pruned at a time."""
    import sparsity_report as sr

    with _bar("pruning parts", unit="part") as progress:
        frame = sr.sensitivity(
            compared.prunings[0].weights,
            compared.prunings[0].sparsity,
            analysis.sensitivity or "block",
            text=analysis.text,
            protocol=analysis.protocol,
            cache=_cache(analysis),
            progress=progress,
        )
    return study.with_measured(sensitivity=frame)


def _with_continuations(study: Comparison, compared: Compared, analysis: Analysis) -> Comparison:
    """Let the variants continue a prompt."""
    import sparsity_report as sr

    with _bar("writing", unit="token") as progress:
        frame = sr.continuations(compared.variants, analysis.prompt or "", progress=progress)
    return study.with_measured(continuations=frame)


def _remark(study: Comparison) -> None:
    """Say what a report tells among its notes, but whoever runs this must know."""
    from sparsity_report.counting.entries import CACHE_NOTES
    from sparsity_report.words.sentences import say_note

    for note in study.notes:
        if note.startswith(CACHE_NOTES):
            _tell(f"sparsity-report: {printable(say_note(note))}", sys.stderr)


def _write(study: Comparison, outputs: Outputs, source: str | None = "") -> None:
    """Write what is wanted of a study, all or nothing, and say the most important about it."""
    import sparsity_report as sr

    if outputs.drawn:
        _import_altair()
    out, folder = outputs.out, outputs.template_dir
    report = partial(sr.write_report, study, template_dir=folder)
    steps: list[tuple[bool, str, Callable[[Path], object]]] = [
        (outputs.json, "study.json", study.save),
        (outputs.csv, "structural_layers/*.csv", partial(sr.write_csv, study)),
        (outputs.png, "figures/*.png", partial(sr.write_figures, study)),
        (outputs.html, "report.html", report),
        (outputs.pdf, "report.pdf", report),
        (outputs.thesis, "thesis/*", partial(sr.write_thesis, study, template_dir=folder)),
    ]
    wanted = {label: write for asked, label, write in steps if asked}
    said = f"Written to {out}: {', '.join(wanted) or 'nothing'}"
    if wanted:
        with together(out, source) as files, _bar("writing", unit="file") as progress:
            for number, (label, write) in enumerate(wanted.items(), 1):
                progress(number - 1, len(wanted), label)
                write(out / label.partition("/*")[0])
                progress(number, len(wanted), label)
        if files.removed:
            said += f"; removed {len(files.removed)} files of another run"
    for sentence in sr.summarize(study)[:3]:
        _tell(sentence)
    _tell(said)


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
            bar.set_postfix_str(printable(legible(name[-40:])[-40:]), refresh=False)
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
    with ProcessPoolExecutor(number, mp_context=get_context("spawn")) as pool:
        with _unheard_by_children():
            for _ in range(number):
                pool.submit(int)  # starts a process
        yield pool


@contextmanager
def _unheard_by_children() -> Iterator[None]:
    """Let processes that are started not hear Ctrl-C, which a terminal tells all: one answers."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the libraries' own advice out of the way of our few lines."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # these are also drawn into pipes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SparsityReportError(
            f"--sparsity must be a number from 0 to 1, not {text!r}; 30 % is 0.3"
        ) from None


def _check_drawable(outputs: Outputs) -> None:
    """Refuse charts that cannot be drawn before minutes of counting, not after."""
    if outputs.drawn:
        from sparsity_report.draw.vega import check_room

        check_room()


def _check_writable(out: Path) -> None:
    """Refuse an impossible folder before minutes of counting, not after."""
    if out.exists() and not out.is_dir():
        raise SparsityReportError(f"--out {out} exists and is not a folder; choose another")
    check_folder(out)
