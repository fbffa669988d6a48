"""Options of the commands: dataclasses whose fields are options, and these for typer."""

# ruff: noqa: RUF009 - option() returns a field of a dataclass

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from sparsity_report.counting.pruning_policies import EXPERT_SCORES, option_names
from sparsity_report.errors import SparsityReportError
from sparsity_report.report.template_files import template_folders

# Headings of the options in the help of a command, in order.
PANELS = MODEL, RULES, PRUNING, MEASUREMENTS, OUTPUT, READING = (
    "Model", "Rules", "Pruning", "Measurements", "Output", "Reading files"
)  # fmt: skip
# Options of `sr.load` that every command has which opens a model.
_OPENING = ("base", "allow_pickle")
_SHARED = (*_OPENING, "template_dir")
#: Kinds of files that ``run`` and ``render`` write.
KINDS = ("html", "pdf", "md", "thesis", "csv", "png", "study")
_FILES = f"Files: {', '.join(KINDS)}."
_POLICIES = ", ".join(option_names())
_STRICT = "Error for a study that was edited after it was written."
_JSON = "Result as JSON on standard output."
_WORKERS = "Worker processes, or 0 for threads."
_TEXT = "Text or file to score. [default: the demo's]"
Model = Annotated[
    str | None, typer.Argument(help="Model, as for run. [default: the demo model]", metavar="MODEL")
]
Models = Annotated[
    list[str] | None,
    typer.Argument(
        help="Paths, or Hub names such as owner/name@revision/file.gguf. [default: the demo model]",
        metavar="MODEL",
    ),
]


def option(default: Any, panel: str, text: str, *names: str, **settings: Any) -> Any:
    """Return a field of a dataclass that is an option with a help text.

    Parameters
    ----------
    default
    panel : str
        Heading above the option in the help.
    text : str
        Help text.
    *names : str
        Names of the option, if not those of typer.
    **settings
        Further settings of :class:`typer.Option`.
    """
    metadata = {"names": names, "help": text, "rich_help_panel": panel, **settings}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def flag(panel: str, text: str) -> Any:
    """Return a field that is an option without a value and a negative form."""
    return option(False, panel, text, "")


def files(text: str) -> Any:
    """Return a field that is the option ``-o``, a list of files to write."""
    return option([], OUTPUT, text, "--out", "-o", metavar="FILE")


def _typer_option(each: Field[Any]) -> Any:
    settings = dict(each.metadata)
    names = [name or f"--{each.name.replace('_', '-')}" for name in settings.pop("names")]
    return typer.Option(*names, **settings)


def dataclass_options(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the fields of a command's dataclass parameters into options.

    Typer makes an option of each parameter of a function. The function returned here has the
    fields of a dataclass in place of the parameter, and passes an instance to the command.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        kind = parameter.annotation
        if not (isinstance(kind, type) and is_dataclass(kind)):
            parameters.append(parameter)
            continue
        groups[name], hints, default = kind, get_type_hints(kind), kind()
        parameters += [
            parameter.replace(
                name=each.name,
                default=getattr(default, each.name),
                annotation=Annotated[hints[each.name], _typer_option(each)],
            )
            # Options that several commands share come last.
            for each in sorted(fields(kind), key=lambda each: each.name in _SHARED)
        ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
        command(**values)

    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True)
class ModelFiles:
    """Files of a model, and how they are read."""

    base: str | None = option(
        None, MODEL, "Base model of a LoRA adapter, which is merged into it.", metavar="MODEL"
    )
    allow_pickle: bool = flag(READING, "PyTorch pickles, loaded as weights only.")

    @property
    def opening(self) -> dict[str, Any]:
        """These options by the names that :func:`sparsity_report.load` gives them."""
        return {name: getattr(self, name) for name in _OPENING}


@dataclass(frozen=True)
class DescribedFiles(ModelFiles):
    """Files of a model, and what its groups follow from."""

    by_names: bool = flag(READING, "Groups by tensor names and shapes, without config.json.")


@dataclass(frozen=True)
class Texts:
    """Templates of what a command writes."""

    template_dir: Path | None = option(
        None, OUTPUT, "Folder of replacement templates.", metavar="FOLDER"
    )

    def __post_init__(self) -> None:
        """Refuse a folder without templates, before counting."""
        template_folders(self.template_dir)


@dataclass(frozen=True)
class Outputs(Texts):
    """Files that a command writes."""

    out: Path = option(Path("results"), OUTPUT, "Output folder.", "--out", "-o", metavar="FOLDER")
    write: list[str] = option(["html,csv,study"], OUTPUT, _FILES, metavar="LIST")

    def __post_init__(self) -> None:
        """Refuse kinds of files that are unknown, before libraries load."""
        super().__post_init__()
        _ = self.kinds

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of files to write, each once, in the order of :data:`KINDS`."""
        given = [name.strip().lower() for each in self.write for name in each.split(",")]
        if unknown := [name for name in given if name not in KINDS]:
            raise SparsityReportError(f"--write {unknown[0]!r} is unknown; use {', '.join(KINDS)}")
        return tuple(kind for kind in KINDS if kind in given)


@dataclass(frozen=True)
class RenderOptions(Outputs):
    """Files that ``render`` writes; study.json exists already."""

    write: list[str] = option(["html,csv"], OUTPUT, _FILES, metavar="LIST")
    strict: bool = flag(READING, _STRICT)


@dataclass(frozen=True)
class Policies:
    """Pruning policies and their levels, and experts to keep."""

    sparsity: list[str] = option(
        [], PRUNING, "Sparsity of prunable weights: 30%,50%. [default: 0.3]", metavar="SHARE"
    )
    policy: list[str] = option(
        [], PRUNING, f"Pruning policy: {_POLICIES}. [default: magnitude]", metavar="NAME"
    )
    calibration: list[str] = option(
        [], PRUNING, "Calibration text or file. [default: the demo's]", metavar="TEXT"
    )
    keep_experts: str | None = option(
        None, PRUNING, "Experts to keep per module: 6, 75%,50%, or a .json list.", metavar="N"
    )
    score: list[str] = option(
        [], PRUNING, f"Expert scores: {', '.join(EXPERT_SCORES)}. [default: reap]", metavar="NAME"
    )


@dataclass(frozen=True)
class Choice(Policies):
    """Variants of the first model."""

    as_is: bool = flag(MODEL, "Variant with the zeros that MODEL has.")


@dataclass(frozen=True)
class ExploreOptions(DescribedFiles):
    """Page of the explorer."""

    out: Path = option(
        Path("results", "explorer.html"), OUTPUT, "Page to write.", "--out", "-o", metavar="FILE"
    )


@dataclass(frozen=True)
class CountingOptions(DescribedFiles):
    """Prunable modules, and how values are counted."""

    blacklist: list[str] = option(
        [], PRUNING, "Unpruned layers. [default: those outside blocks]", metavar="NAME"
    )
    workers: int = option(0, READING, _WORKERS, min=0, metavar="N")
    cache: Path | None = option(None, READING, "Cache folder for counts.", metavar="FOLDER")


@dataclass(frozen=True)
class Analysis(CountingOptions):
    """Options to open, count and measure models."""

    name: str | None = option(
        None, MODEL, "Name of MODEL in the report. [default: from MODEL]", metavar="TEXT"
    )
    perplexity: bool = flag(MEASUREMENTS, "Perplexity of the variants.")
    protocol: str | None = option(
        None,
        MEASUREMENTS,
        "Protocol of scores: sliding, wikitext2-2048, wikitext2-max, c4-256x2048. "
        "[default: sliding]",
        metavar="NAME",
    )
    curve: bool = flag(MEASUREMENTS, "Perplexity of one policy at every 10 %.")
    text: str | None = option(None, MEASUREMENTS, _TEXT, metavar="TEXT")
    prompt: list[str] = option(
        [], MEASUREMENTS, "Prompt for a continuation of 40 tokens.", metavar="TEXT"
    )
    latency: bool = flag(MEASUREMENTS, "Latency of layers and forward passes.")
    seconds: float | None = option(
        None, MEASUREMENTS, "Time budget of --latency. [default: 60]", metavar="SECONDS"
    )
    sensitivity: str | None = option(
        None, MEASUREMENTS, "Sensitivity by part: block, group or layer.", metavar="PART"
    )
    stream: bool = flag(READING, "Hub files over the network, without a local copy.")

    @property
    def scores(self) -> bool:
        """True if the variants are scored on a text."""
        return self.perplexity or self.curve


@dataclass(frozen=True)
class CountOptions(ModelFiles):
    """Options of ``count``."""

    zeros: bool = flag(READING, "Zeros and N:M patterns, from all values.")
    json: bool = flag(OUTPUT, "One JSON object a line for each model.")


@dataclass(frozen=True)
class CheckOptions(ModelFiles):
    """Options of ``check``: rules, and where the model is."""

    zeros: str | None = option(
        None, RULES, 'Zeros among prunable weights: ">=50%", "40%..60%".', metavar="BOUND"
    )
    layers: str | None = option(
        None, RULES, 'Zeros of each prunable matrix: "<=60%".', metavar="BOUND"
    )
    pattern: str | None = option(
        None, RULES, "N:M pattern of each prunable matrix, along its inputs.", metavar="N:M"
    )
    mask_of: str | None = option(
        None, RULES, "Model whose zeros must be zero here, too.", metavar="MODEL"
    )
    params: str | None = option(None, RULES, 'Number of parameters: "6.5B..7.5B".', metavar="BOUND")
    no_nan: bool = flag(RULES, "Neither NaN nor infinite values.")
    runtime: str | None = option(
        None, RULES, "Runtime that must not refuse the layout, such as vllm.", metavar="NAME"
    )
    audit: bool = flag(RULES, "Notes about deployment as violations.")
    json: bool = flag(OUTPUT, _JSON)


@dataclass(frozen=True)
class WriteOptions(DescribedFiles):
    """Options of ``expand``: the model, and the folder to write."""

    out: Path = option(
        ..., OUTPUT, "New folder for the files, or .gguf.", "--out", "-o", metavar="FOLDER"
    )
    base_model: str | None = option(
        None, OUTPUT, "Hub id for the model card. [default: from MODEL]", metavar="ID"
    )


@dataclass(frozen=True)
class PruneOptions(CountingOptions, WriteOptions, Policies):
    """Options of ``prune``."""

    mask: Path | None = option(
        None, PRUNING, "Masks of another tool, .safetensors.", metavar="FILE"
    )


@dataclass(frozen=True)
class PairOptions(ModelFiles, Texts):
    """Options of ``pair``."""

    out: list[Path] = files("Report as .html, .pdf, .md or .json; repeatable.")
    thesis: Path | None = option(None, OUTPUT, "Folder of the LaTeX kit.", metavar="FOLDER")
    json: bool = flag(OUTPUT, _JSON)
    workers: int = option(0, READING, _WORKERS, min=0, metavar="N")


@dataclass(frozen=True)
class NotebookOptions(ModelFiles, Texts):
    """Options of ``notebook``."""

    sparsity: str = option("0.3", PRUNING, "Sparsity of prunable weights.", metavar="SHARE")
    out: list[Path] = files("Notebook as .html or .ipynb. [default: in results/]")
    hide_inputs: bool = flag(OUTPUT, "Export without code cells.")
    notebook: str = option(
        "structural_csr_analysis",
        OUTPUT,
        "Notebook: structural_csr_analysis, thesis_figures, policies, or a path.",
        metavar="NAME",
    )
