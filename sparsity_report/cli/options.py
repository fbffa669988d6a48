"""Options of the commands, grouped in dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", help="Output folder.")]
Json = Annotated[bool, typer.Option(help="Write study.json, for render and diff.")]
Language = Annotated[
    str,
    typer.Option(help="Language of the report: en, fr, or one in --template-dir.", metavar="CODE"),
]
Templates = Annotated[
    Path | None, typer.Option("--template-dir", help="Folder with your templates.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a study that was edited after it was written.")
]


@dataclass(frozen=True)
class Outputs:
    """Files that a command writes."""

    out: Out = Path("results")
    html: Annotated[bool, typer.Option(help="Write report.html, self-contained.")] = True
    pdf: Annotated[bool, typer.Option(help="Write report.pdf.")] = False
    thesis: Annotated[
        bool, typer.Option(help="Write figures, tables and numbers for LaTeX to thesis/.")
    ] = False
    csv: Annotated[bool, typer.Option(help="Write tables to structural_layers/.")] = True
    png: Annotated[bool, typer.Option(help="Write figures to figures/.")] = True
    json: Json = True
    language: Language = "en"
    template_dir: Templates = None
    shown: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False

    @property
    def drawn(self) -> bool:
        """True if there are charts to draw."""
        return self.html or self.pdf or self.thesis or self.png


@dataclass(frozen=True)
class RenderOptions(Outputs):
    """Files that ``render`` writes; study.json exists already."""

    json: Json = False


@dataclass(frozen=True)
class Choice:
    """Pruning policies, and models to compare with."""

    sparsity: Annotated[
        list[str],
        typer.Option(help="Share of the prunable weights to prune, 0 to 1; several as 0.3,50%."),
    ] = field(default_factory=lambda: ["0.3"])
    policy: Annotated[
        list[str],
        typer.Option(
            help="Pruning policy: magnitude, layerwise, wanda, owl, random, 2:4, wanda-2:4; "
            "several as magnitude,wanda."
        ),
    ] = field(default_factory=lambda: ["magnitude"])
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Calibration text of wanda and owl, or a file. [default: the demo's]",
            metavar="TEXT",
        ),
    ] = None
    also: Annotated[
        list[str],
        typer.Option(help="An already-pruned model to include in the comparison.", metavar="MODEL"),
    ] = field(default_factory=list)


@dataclass(frozen=True)
class Analysis:
    """Options to open, count and measure models."""

    name: Annotated[
        str | None, typer.Option(help="Name of the model in the report. [default: from MODEL]")
    ] = None
    blacklist: Annotated[
        list[str], typer.Option(help="Part of the names of modules to leave unpruned.")
    ] = field(default_factory=lambda: ["lm_head"])
    convention: Annotated[
        str,
        typer.Option(
            help="Counting convention: standard, or notebook (adds look-ups and tied heads)."
        ),
    ] = "standard"
    context: Annotated[
        int | None,
        typer.Option(
            help="Context length in tokens, to count FLOPs of attention scores. [default: none]"
        ),
    ] = None
    patterns: Annotated[
        bool, typer.Option(help="Count N:M and block patterns of zeros (reads weights twice).")
    ] = True
    zstd: Annotated[
        bool, typer.Option("--zstd", help="Measure zstd-compressed file size (slow).")
    ] = False
    latency: Annotated[
        bool, typer.Option("--latency", help="Time layers and forward passes on this machine.")
    ] = False
    cold: Annotated[
        bool | None,
        typer.Option("--cold/--warm", help="Cache state of timed weights. [default: both]"),
    ] = None
    budget: Annotated[
        float | None,
        typer.Option(help="Time budget of --latency. [default: 60 s]", metavar="SECONDS"),
    ] = None
    precision: Annotated[
        float | None,
        typer.Option(
            help="Target relative precision of latency ratios. [default: 0.02]", metavar="SHARE"
        ),
    ] = None
    perplexity: Annotated[
        bool,
        typer.Option(
            "--perplexity", help="Measure perplexity; for one policy and level also at every 10 %."
        ),
    ] = False
    sensitivity: Annotated[
        str | None,
        typer.Option(
            help="Sensitivity to pruning one part at a time: block, group or layer.", metavar="BY"
        ),
    ] = None
    text: Annotated[
        str | None, typer.Option(help="Text to score, or a file. [default: the demo's]")
    ] = None
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Evaluation protocol: sliding, wikitext2-2048, wikitext2-max, c4-256x2048, ptb. "
            "[default: sliding]",
            metavar="NAME",
        ),
    ] = None
    prompt: Annotated[
        str | None, typer.Option(help="Prompt that each variant continues by 40 tokens.")
    ] = None
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes that count files; 0 uses threads.")
    ] = 0
    cache: Annotated[
        Path | None,
        typer.Option(help="Cache folder for counts, keyed by each file's size, time and samples."),
    ] = None
    cache_verify: Annotated[
        bool,
        typer.Option(
            "--cache-verify", help="Count everything again and report wrong entries of --cache."
        ),
    ] = False
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None
    subfolder: Annotated[
        str | None, typer.Option(help="Folder of the model in the repository or directory.")
    ] = None
    file: Annotated[str | None, typer.Option(help="File to open if there are several.")] = None
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Open PyTorch pickles (weights only).")
    ] = False
    base: Annotated[
        str | None, typer.Option(help="Base model of a LoRA adapter, to count the two merged.")
    ] = None
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Count a Hub model over the network, without a local copy."),
    ] = False


@dataclass(frozen=True)
class DiffOptions:
    """Options of ``diff``."""

    html: Annotated[Path | None, typer.Option(help="Report as an .html file.")] = None
    strict: Strict = False
    language: Language = "en"
    template_dir: Templates = None


@dataclass(frozen=True)
class PairOptions:
    """Options of ``pair``."""

    out: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", help="Report file: .html, .pdf or .json; may be repeated."),
    ] = None
    thesis: Annotated[
        Path | None, typer.Option(help="Folder for figures, tables and numbers for LaTeX.")
    ] = None
    json: Annotated[Path | None, typer.Option(help="Comparison as a .json file.")] = None
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Merge AFTER, a LoRA adapter of BEFORE.")
    ] = False
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes that read files; 0 uses threads.")
    ] = 0
    cache: Annotated[Path | None, typer.Option(help="Cache folder for compared tensors.")] = None
    language: Language = "en"
    template_dir: Templates = None


@dataclass(frozen=True)
class NotebookOptions:
    """Options of ``notebook``."""

    to: Annotated[str, typer.Option(help="Format: html or ipynb.")] = "html"
    sparsity: Annotated[str, typer.Option(help="Share of the prunable weights to prune.")] = "0.3"
    out: Out = Path("results")
    hide_inputs: Annotated[bool, typer.Option("--hide-inputs", help="Hide code cells.")] = False
    notebook: Annotated[
        str,
        typer.Option(
            help="Notebook: structural_csr_analysis, thesis_figures, policies, or a path."
        ),
    ] = "structural_csr_analysis"
    language: Annotated[
        str, typer.Option(help="Language of sentences, figures and tables: en, fr.", metavar="CODE")
    ] = "en"
    template_dir: Templates = None
