"""Options of the commands: dataclasses whose fields are options, and these for typer."""

# ruff: noqa: RUF009 - option() returns a field of a dataclass

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from sparsity_report.words.languages import speaking

_LANGUAGE = "Language of the report: en, fr, or one in --template-dir."
_TEMPLATES = "Folder with your templates."
_STRICT = "Refuse a study that was edited after it was written."
_STUDY = "Write study.json, for render and diff."
Language = Annotated[str, typer.Option(help=_LANGUAGE, metavar="CODE")]
Model = Annotated[str | None, typer.Argument(help="Model, as for run. [default: the demo model]")]
Strict = Annotated[bool, typer.Option("--strict", help=_STRICT)]


def option(default: Any, text: str, *names: str, **settings: Any) -> Any:
    """Return a field of a dataclass that is an option with a help text.

    Parameters
    ----------
    default
    text : str
        Help text.
    *names : str
        Names of the option, if not those of typer.
    **settings
        Further settings of :class:`typer.Option`.
    """
    metadata = {"option": typer.Option(*names, help=text, **settings)}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def dataclass_options(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the fields of a command's dataclass parameters into options.

    Typer makes an option of each parameter of a function. The function returned here has the
    fields of a dataclass in place of the parameter, and passes an instance to the command. The
    command runs in the language of its options.
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
                annotation=Annotated[hints[each.name], each.metadata["option"]],
            )
            for each in fields(kind)
        ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        with ExitStack() as language:
            for name, kind in groups.items():
                given = kind(**{each.name: values.pop(each.name) for each in fields(kind)})
                if hasattr(given, "language"):
                    language.enter_context(speaking(given.language, given.template_dir))
                values[name] = given
            command(**values)

    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True)
class Outputs:
    """Files that a command writes."""

    out: Path = option(Path("results"), "Output folder.", "--out")
    html: bool = option(True, "Write report.html, self-contained.")
    pdf: bool = option(False, "Write report.pdf.")
    thesis: bool = option(False, "Write figures, tables and numbers for LaTeX to thesis/.")
    csv: bool = option(True, "Write tables to structural_layers/.")
    png: bool = option(True, "Write figures to figures/.")
    json: bool = option(True, _STUDY)
    language: str = option("en", _LANGUAGE, metavar="CODE")
    template_dir: Path | None = option(None, _TEMPLATES, "--template-dir")
    shown: bool = option(False, "Open the report in the browser.", "--open")

    @property
    def drawn(self) -> bool:
        """True if there are charts to draw."""
        return self.html or self.pdf or self.thesis or self.png


@dataclass(frozen=True)
class RenderOptions(Outputs):
    """Files that ``render`` writes; study.json exists already."""

    json: bool = option(False, _STUDY)


@dataclass(frozen=True)
class Choice:
    """Pruning policies, and models to compare with."""

    sparsity: list[str] = option(
        [],
        "Share of the prunable weights to prune, 0 to 1; several as 0.3,50%. [default: 0.3; an "
        "already-pruned model as it is]",
    )
    policy: list[str] = option(
        [],
        "Pruning policy: magnitude, layerwise, wanda, owl, random, 2:4, wanda-2:4; several as "
        "magnitude,wanda. [default: magnitude]",
    )
    as_is: bool = option(False, "Count the zeros that the model has as a variant.", "--as-is")
    calibration: str | None = option(
        None, "Calibration text of wanda and owl, or a file. [default: the demo's]", metavar="TEXT"
    )
    also: list[str] = option(
        [], "An already-pruned model to include in the comparison.", metavar="MODEL"
    )


@dataclass(frozen=True)
class Analysis:
    """Options to open, count and measure models."""

    name: str | None = option(None, "Name of the model in the report. [default: from MODEL]")
    blacklist: list[str] = option(
        ["lm_head"], "Part of the names of modules to leave unpruned; lm_head is the output head."
    )
    convention: str = option(
        "standard", "Counting convention: standard, or notebook (adds look-ups and tied heads)."
    )
    context: int | None = option(
        None, "Context length in tokens, to count FLOPs of attention scores. [default: none]"
    )
    patterns: bool = option(True, "Count N:M and block patterns of zeros (reads weights twice).")
    zstd: bool = option(False, "Measure zstd-compressed file size (slow).", "--zstd")
    latency: bool = option(False, "Time layers and forward passes on this machine.", "--latency")
    cold: bool | None = option(
        None, "Cache state of timed weights. [default: both]", "--cold/--warm"
    )
    budget: float | None = option(
        None, "Time budget of --latency. [default: 60 s]", metavar="SECONDS"
    )
    precision: float | None = option(
        None, "Target relative precision of latency ratios. [default: 0.02]", metavar="SHARE"
    )
    perplexity: bool = option(
        False, "Measure perplexity; for one policy and level also at every 10 %.", "--perplexity"
    )
    sensitivity: str | None = option(
        None, "Sensitivity to pruning one part at a time: block, group or layer.", metavar="BY"
    )
    text: str | None = option(None, "Text to score, or a file. [default: the demo's]")
    protocol: str | None = option(
        None,
        "Evaluation protocol: sliding, wikitext2-2048, wikitext2-max, c4-256x2048, ptb. "
        "[default: sliding]",
        metavar="NAME",
    )
    prompt: str | None = option(None, "Prompt that each variant continues by 40 tokens.")
    workers: int = option(0, "Worker processes that count files; 0 uses threads.", min=0)
    cache: Path | None = option(
        None, "Cache folder for counts, keyed by each file's size, time and samples."
    )
    cache_verify: bool = option(
        False, "Count everything again and report wrong entries of --cache.", "--cache-verify"
    )
    revision: str | None = option(None, "Branch, tag or commit on the Hub.")
    subfolder: str | None = option(None, "Folder of the model in the repository or directory.")
    file: str | None = option(None, "File to open if there are several.")
    allow_pickle: bool = option(False, "Open PyTorch pickles (weights only).", "--allow-pickle")
    base: str | None = option(None, "Base model of a LoRA adapter, to count the two merged.")
    stream: bool = option(
        False, "Count a Hub model over the network, without a local copy.", "--stream"
    )


@dataclass(frozen=True)
class DiffOptions:
    """Options of ``diff``."""

    html: Path | None = option(None, "Report as an .html file.")
    strict: bool = option(False, "Refuse a study that was edited after it was written.", "--strict")
    language: str = option("en", _LANGUAGE, metavar="CODE")
    template_dir: Path | None = option(None, _TEMPLATES, "--template-dir")


@dataclass(frozen=True)
class PairOptions:
    """Options of ``pair``."""

    out: list[Path] | None = option(
        None, "Report file: .html, .pdf or .json; may be repeated.", "--out", "-o"
    )
    thesis: Path | None = option(None, "Folder for figures, tables and numbers for LaTeX.")
    json: Path | None = option(None, "Comparison as a .json file.")
    adapter: bool = option(False, "Merge AFTER, a LoRA adapter of BEFORE.", "--adapter")
    workers: int = option(0, "Worker processes that read files; 0 uses threads.", min=0)
    cache: Path | None = option(None, "Cache folder for compared tensors.")
    language: str = option("en", _LANGUAGE, metavar="CODE")
    template_dir: Path | None = option(None, _TEMPLATES, "--template-dir")


@dataclass(frozen=True)
class NotebookOptions:
    """Options of ``notebook``."""

    to: str = option("html", "Format: html or ipynb.")
    sparsity: str = option("0.3", "Share of the prunable weights to prune.")
    out: Path = option(Path("results"), "Output folder.", "--out")
    hide_inputs: bool = option(False, "Hide code cells.", "--hide-inputs")
    notebook: str = option(
        "structural_csr_analysis",
        "Notebook: structural_csr_analysis, thesis_figures, policies, or a path.",
    )
    language: str = option(
        "en", "Language of sentences, figures and tables: en, fr.", metavar="CODE"
    )
    template_dir: Path | None = option(None, _TEMPLATES, "--template-dir")
