"""Options of the commands: dataclasses whose fields are options, and these for typer."""

# ruff: noqa: RUF009 - option() returns a field of a dataclass

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from sparsity_report.errors import SparsityReportError

# Headings of the options in the help of a command, in order.
PANELS = MODEL, RULES, PRUNING, MEASUREMENTS, OUTPUT, READING = (
    "Model",
    "Rules",
    "Pruning",
    "Measurements",
    "Output",
    "Reading files",
)
# Options of `sr.load` that every command has which opens a model.
_OPENING = ("revision", "subfolder", "file", "base", "allow_pickle")
_SHARED = (*_OPENING, "language", "template_dir")
_LANGUAGE = "Language: en, fr, or one in --template-dir."
_STRICT = "Error for a study that was edited after it was written."
_STUDY = "study.json, for render."
_JSON = "Result as JSON on standard output."
_WORKERS = "Worker processes, or 0 for threads."
_TEXT = "Text or file to score. [default: the demo's]"
_PROTOCOL = (
    "Evaluation protocol: sliding, wikitext2-2048, wikitext2-max, c4-256x2048, ptb. "
    "[default: sliding]"
)
Model = Annotated[
    str | None, typer.Argument(help="Model, as for run. [default: the demo model]", metavar="MODEL")
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
    """Return a field that is an option without a negative form, such as ``--latency``."""
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


def reading(name: str, default: Any = None) -> Any:
    """Return a field that is an option to find and read a model."""
    text, metavar = {
        "revision": ("Branch, tag or commit on the Hub. [default: main]", "NAME"),
        "subfolder": ("Folder inside the repository or directory.", "FOLDER"),
        "file": ("File to open where there are several.", "FILE"),
        "base": ("Base model of a LoRA adapter, which is merged into it.", "MODEL"),
    }[name]
    return option(default, MODEL, text, metavar=metavar)


def allowing_pickle() -> Any:
    """Return a field that is the flag ``--allow-pickle``."""
    return flag(READING, "PyTorch pickles, loaded as weights only.")


@dataclass(frozen=True)
class ModelFiles:
    """Files of a model, and how they are read."""

    revision: str | None = reading("revision")
    subfolder: str | None = reading("subfolder")
    file: str | None = reading("file")
    base: str | None = reading("base")
    allow_pickle: bool = allowing_pickle()

    @property
    def opening(self) -> dict[str, Any]:
        """These options by the names that :func:`sparsity_report.load` gives them."""
        return {name: getattr(self, name) for name in _OPENING}


@dataclass(frozen=True)
class TwoModelFiles:
    """Files of two models: an option given once applies to both, given twice to one each."""

    revision: list[str] = reading("revision", [])
    subfolder: list[str] = reading("subfolder", [])
    file: list[str] = reading("file", [])
    base: list[str] = reading("base", [])
    allow_pickle: bool = allowing_pickle()

    @property
    def openings(self) -> tuple[dict[str, Any], ...]:
        """The options of :func:`sparsity_report.load` for both models; empty texts are none."""
        given = {name: list(getattr(self, name)) for name in _OPENING[:-1]}
        for name, values in given.items():
            if len(values) > 2:
                raise SparsityReportError(
                    f"--{name} is given {len(values)} times for two models; give it once for "
                    "both, or once for each"
                )
        return tuple(
            {
                **{name: values[place] or None for name, values in given.items() if values},
                "allow_pickle": self.allow_pickle,
            }
            for place in (0, -1)
        )


@dataclass(frozen=True)
class Texts:
    """Language and templates of what a command writes."""

    language: str = option("en", OUTPUT, _LANGUAGE, metavar="CODE")
    template_dir: Path | None = option(
        None, OUTPUT, "Folder of replacement templates.", metavar="FOLDER"
    )


@dataclass(frozen=True)
class Outputs(Texts):
    """Files that a command writes."""

    out: Path = option(Path("results"), OUTPUT, "Output folder.", "--out", "-o", metavar="FOLDER")
    html: bool = option(True, OUTPUT, "report.html, self-contained.")
    pdf: bool = option(False, OUTPUT, "report.pdf.")
    markdown: bool = option(False, OUTPUT, "report.md.")
    thesis: bool = option(False, OUTPUT, "LaTeX kit in thesis/.")
    csv: bool = option(True, OUTPUT, "Tables in structural_layers/.")
    png: bool = option(True, OUTPUT, "Figures in figures/.")
    study: bool = option(True, OUTPUT, _STUDY)
    shown: bool = option(False, OUTPUT, "Report in the browser.", "--open")

    @property
    def drawn(self) -> bool:
        """True if there are charts to draw."""
        return self.html or self.pdf or self.markdown or self.thesis or self.png


@dataclass(frozen=True)
class RenderOptions(Outputs):
    """Files that ``render`` writes; study.json exists already."""

    study: bool = option(False, OUTPUT, _STUDY)
    strict: bool = flag(READING, _STRICT)


@dataclass(frozen=True)
class ExpertOptions:
    """Experts to keep of a mixture of experts."""

    keep_experts: str | None = option(
        None,
        PRUNING,
        "Experts to keep per module: 6, 75%, or a .json list.",
        metavar="N",
    )
    score: str | None = option(
        None,
        PRUNING,
        "Expert score: frequency, magnitude. [default: reap]",
        metavar="NAME",
    )


@dataclass(frozen=True)
class Policies(ExpertOptions):
    """Pruning policies and their levels."""

    sparsity: list[str] = option(
        [], PRUNING, "Sparsity of prunable weights: 30%,50%. [default: 0.3]", metavar="SHARE"
    )
    policy: list[str] = option(
        [],
        PRUNING,
        "Pruning policy: magnitude, layerwise, wanda, owl, random, 2:4, wanda-2:4. "
        "[default: magnitude]",
        metavar="NAME",
    )
    calibration: str | None = option(
        None, PRUNING, "Calibration text or file. [default: the demo's]", metavar="TEXT"
    )


@dataclass(frozen=True)
class Choice(Policies):
    """Pruning policies, and models to compare with."""

    as_is: bool = flag(PRUNING, "Variant with the zeros that the model has.")
    also: list[str] = option([], PRUNING, "Already-pruned model to compare with.", metavar="MODEL")


@dataclass(frozen=True)
class ExploreOptions(ModelFiles):
    """Form of the explorer."""

    language: str = option("en", OUTPUT, _LANGUAGE, metavar="CODE")
    kernel: bool = flag(OUTPUT, "Kernel for layer bounds and new variants.")
    shown: bool = option(False, OUTPUT, "Page in the browser.", "--open")


@dataclass(frozen=True)
class Analysis(ModelFiles):
    """Options to open, count and measure models."""

    name: str | None = option(
        None, MODEL, "Name in the report. [default: from MODEL]", metavar="TEXT"
    )
    blacklist: list[str] = option(
        ["lm_head"], PRUNING, "Modules to leave unpruned.", metavar="NAME"
    )
    convention: str = option(
        "standard", MEASUREMENTS, "Counting convention: standard or notebook.", metavar="NAME"
    )
    context: int | None = option(
        None, MEASUREMENTS, "Context length for FLOPs of attention scores.", metavar="TOKENS"
    )
    patterns: bool = option(True, MEASUREMENTS, "N:M and block patterns.")
    zstd: bool = flag(MEASUREMENTS, "File size after zstd compression (slow).")
    latency: bool = flag(MEASUREMENTS, "Latency of layers and of forward passes.")
    cold: bool | None = option(
        None, MEASUREMENTS, "Cache state of timed weights. [default: both]", "--cold/--warm"
    )
    budget: float | None = option(
        None, MEASUREMENTS, "Time budget of --latency. [default: 60 s]", metavar="SECONDS"
    )
    precision: float | None = option(
        None, MEASUREMENTS, "Precision of latency ratios. [default: 0.02]", metavar="SHARE"
    )
    perplexity: bool = flag(MEASUREMENTS, "Perplexity; of one pruning at every 10 %, too.")
    sensitivity: str | None = option(
        None, MEASUREMENTS, "Sensitivity by part: block, group or layer.", metavar="PART"
    )
    text: str | None = option(None, MEASUREMENTS, _TEXT, metavar="TEXT")
    protocol: str | None = option(None, MEASUREMENTS, _PROTOCOL, metavar="NAME")
    prompt: list[str] = option(
        [], MEASUREMENTS, "Prompt for a continuation of 40 tokens.", metavar="TEXT"
    )
    prompts: Path | None = option(
        None, MEASUREMENTS, "File of prompts: one per line, or JSON lines.", metavar="FILE"
    )
    seeds: int = option(0, MEASUREMENTS, "Sampled continuations.", min=0, metavar="N")
    workers: int = option(0, READING, _WORKERS, min=0, metavar="N")
    cache: Path | None = option(None, READING, "Cache folder for counts.", metavar="FOLDER")
    cache_verify: bool = flag(READING, "Recount that reports wrong entries of --cache.")
    stream: bool = flag(READING, "Hub files over the network, without a local copy.")


@dataclass(frozen=True)
class DiffOptions(Texts):
    """Options of ``diff``."""

    out: list[Path] = files("Report as .html, .md or .json; repeatable.")
    json: bool = flag(OUTPUT, _JSON)
    strict: bool = flag(READING, _STRICT)


@dataclass(frozen=True)
class CountOptions(ModelFiles, Texts):
    """Options of ``count``."""

    zeros: bool = flag(READING, "Zeros and N:M patterns, from all values.")
    context: int | None = option(
        None, READING, "Positions of each sequence; 8,192 or the model's limit.", metavar="N"
    )
    batch: int | None = option(None, READING, "Sequences served at a time; 1.", metavar="B")
    kv_dtype: str | None = option(
        None, READING, "Type of keys and values, such as float8_e4m3fn.", metavar="DTYPE"
    )
    fits: str | None = option(None, READING, "Memory to fit into: 24GB, 24GiB.", metavar="SIZE")
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
    audit: bool = flag(RULES, "No notes about deployment.")
    rules: Path | None = option(
        None, RULES, "YAML file of models and rules, instead of MODEL.", metavar="FILE"
    )
    json: bool = flag(OUTPUT, _JSON)

    @property
    def wanted(self) -> dict[str, object]:
        """The rules that are given as options, by name."""
        names = ("zeros", "layers", "pattern", "mask_of", "params", "no_nan", "runtime", "audit")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class WriteOptions(ModelFiles):
    """Options of ``expand``: the model, and the folder to write."""

    out: Path = option(
        ..., OUTPUT, "New or empty folder for the files.", "--out", "-o", metavar="FOLDER"
    )
    base_model: str | None = option(
        None, OUTPUT, "Hub id for the model card. [default: from MODEL]", metavar="ID"
    )


@dataclass(frozen=True)
class PruneOptions(Policies, WriteOptions):
    """Options of ``prune``."""

    bound: list[str] = option(
        [], PRUNING, "Largest sparsity of a module or group.", metavar="NAME=SHARE"
    )
    mask: Path | None = option(
        None, PRUNING, "Masks of another tool: .safetensors or .npz.", metavar="FILE"
    )
    blacklist: list[str] = option(
        ["lm_head"], PRUNING, "Modules to leave unpruned.", metavar="NAME"
    )
    sparse: bool = flag(OUTPUT, "Sparse layout, if a runtime reads it.")
    workers: int = option(0, READING, _WORKERS, min=0, metavar="N")
    cache: Path | None = option(None, READING, "Cache folder for counts.", metavar="FOLDER")

    @property
    def prunes(self) -> bool:
        """True if an option says which weights become zero."""
        return bool(self.policy or self.sparsity or self.bound or self.mask)


@dataclass(frozen=True)
class PairOptions(TwoModelFiles, Texts):
    """Options of ``pair``."""

    out: list[Path] = files("Report as .html, .pdf, .md or .json; repeatable.")
    thesis: Path | None = option(None, OUTPUT, "Folder of the LaTeX kit.", metavar="FOLDER")
    json: bool = flag(OUTPUT, _JSON)
    adapter: bool = flag(MODEL, "AFTER is a LoRA adapter of BEFORE, compared merged.")
    workers: int = option(0, READING, _WORKERS, min=0, metavar="N")
    cache: Path | None = option(
        None, READING, "Cache folder for compared tensors.", metavar="FOLDER"
    )


@dataclass(frozen=True)
class DistanceOptions(TwoModelFiles, Texts):
    """Options of ``distance``."""

    text: str | None = option(None, MEASUREMENTS, _TEXT, metavar="TEXT")
    protocol: str | None = option(None, MEASUREMENTS, _PROTOCOL, metavar="NAME")
    out: list[Path] = files("Figures as .json; repeatable.")
    json: bool = flag(OUTPUT, _JSON)


@dataclass(frozen=True)
class NotebookOptions(ModelFiles, Texts):
    """Options of ``notebook``."""

    to: str | None = option(None, OUTPUT, "", hidden=True)
    sparsity: str = option("0.3", PRUNING, "Sparsity of prunable weights.", metavar="SHARE")
    out: list[Path] = files("Notebook as .html or .ipynb. [default: in results/]")
    hide_inputs: bool = flag(OUTPUT, "Export without code cells.")
    notebook: str = option(
        "structural_csr_analysis",
        OUTPUT,
        "Notebook: structural_csr_analysis, thesis_figures, policies, or a path.",
        metavar="NAME",
    )
