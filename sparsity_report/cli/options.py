"""The options of the commands, as values: what is opened, pruned, measured and written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", help="Folder for everything that is written.")]
Json = Annotated[bool, typer.Option(help="study.json, to render again.")]
Language = Annotated[
    str, typer.Option(help="Of the report: en, fr, or one in --template-dir.", metavar="CODE")
]
Templates = Annotated[Path | None, typer.Option("--template-dir", help="Your own templates.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a study that was edited, or is too old to tell.")
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
    shown: Annotated[
        bool, typer.Option("--open", help="Open the report in the browser when it is written.")
    ] = False

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
        typer.Option(help="Share of the prunable weights to prune, 0 to 1; several as 0.3,50%."),
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
class Telling:
    """How it is told what changed."""

    html: Annotated[Path | None, typer.Option(help="Also write it as this .html file.")] = None
    strict: Strict = False
    language: Language = "en"
    template_dir: Templates = None


@dataclass(frozen=True)
class Pairing:
    """How two checkpoints are opened and read, and what is written of them."""

    out: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", help="Write a report: .html, .pdf, or .json; may be repeated."),
    ] = None
    thesis: Annotated[
        Path | None, typer.Option(help="Folder for figures, tables and numbers in LaTeX.")
    ] = None
    json: Annotated[Path | None, typer.Option(help="Also keep it as this .json file.")] = None
    adapter: Annotated[
        bool, typer.Option("--adapter", help="AFTER is a LoRA adapter of BEFORE: merge the two.")
    ] = False
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read files; 0: threads of this one.")
    ] = 0
    cache: Annotated[Path | None, typer.Option(help="Folder where what was found is kept.")] = None
    language: Language = "en"
    template_dir: Templates = None


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
    language: Annotated[
        str, typer.Option(help="Of sentences, figures and tables: en, fr.", metavar="CODE")
    ] = "en"
    template_dir: Templates = None
