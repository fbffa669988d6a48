"""Model cards for the Hub: metadata for its filters, and a text in which no name is markup."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import write_file
from sparsity_report.report.markdown_report import to_report
from sparsity_report.report.study_sections import study_document
from sparsity_report.study.files.study_sources import StudySource, study_or_saved
from sparsity_report.untrusted.gates import open_file
from sparsity_report.weights.sources.model_paths import hub_id, is_hub_id

# Bytes of a model card that are read; metadata comes first.
_READ = 2**20
# Fields of the source's card that hold for a pruned model, too.
_KEPT = ("license", "license_name", "license_link", "language", "pipeline_tag")
# A field with a text on one line. Only such lines are parsed: YAML of an unknown card may expand
# or recurse without end.
_NAMES = "|".join((*_KEPT, "base_model", "library_name"))
_FIELD = re.compile(rf"^(?:{_NAMES}): .{{1,500}}$(?!\n[ \t])", re.MULTILINE)
# Sections of a report that a card repeats, and how many of their blocks.
_SECTIONS = {"results": None, "quality": None, "totals": 1, "method": None}


def card(
    body: str,
    metadata: Mapping[str, str],
    *,
    base_model: str | None,
    library: str | None,
    is_pruned: bool,
) -> str:
    """Return a model card.

    Parameters
    ----------
    body : str
        Markdown.
    metadata : mapping
        Metadata of another card; its license and language are kept.
    base_model : str, optional
        Hub id of the model that was pruned.
    library : str, optional
        Library that opens the model.
    is_pruned : bool
        Whether to tag the model as pruned.
    """
    from huggingface_hub import ModelCardData

    kept: dict[str, Any] = {key: metadata[key] for key in _KEPT if key in metadata}
    data = ModelCardData(
        base_model=base_model,
        library_name=library,
        tags=["sparsity-report", *(["pruned"] if is_pruned else [])],
        **kept,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{body}"


def check_base(base_model: str | None) -> None:
    """Refuse the name of a base model that is not a Hub id."""
    if base_model is not None and not is_hub_id(base_model):
        raise SparsityReportError(f"base_model={base_model!r} is not a Hub id, such as gpt2")


def write_model_card(
    study: StudySource,
    path: str | os.PathLike[str],
    *,
    base_model: str | None = None,
) -> Path:
    """Write a study as a model card for the Hub: verdict, totals, scores and protocol.

    Metadata above the text has ``base_model``, ``library_name`` and tags. License, language and
    library are those of the card that the new one replaces, such as that of
    :func:`write_checkpoint`, else license and language of the model that was pruned.

    Parameters
    ----------
    study : Study, Explorer or path-like
        From :func:`sparsity_report.compare`, its explorer, or the path of a saved study.
    path : path-like
        The file to write, ``README.md`` in the folder of a model.
    base_model : str, optional
        Hub id of the model that was pruned; by default that of a model from the Hub.

    Returns
    -------
    pathlib.Path
        The path written.

    Raises
    ------
    SparsityReportError
        `base_model` is not a Hub id, or the file cannot be written.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import tempfile
    >>> study = sr.compare(sr.masked(sr.global_magnitude(sr.load(), sparsity=0.3)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = sr.write_model_card(study, f"{folder}/README.md", base_model="gpt2")
    ...     print(path.read_text(encoding="utf-8")[:20])
    ---
    base_model: gpt2
    """
    check_base(base_model)
    target, read = Path(path), study_or_saved("write_model_card", study)
    document = study_document(read, "markdown")
    parts = {section.key: section for section in document["sections"]}
    chosen = [(parts[key], count) for key, count in _SECTIONS.items() if key in parts]
    sections = [replace(p, blocks=p.blocks[:n], is_appendix=False) for p, n in chosen]
    body = to_report({**document, "sections": sections, "hero": None})
    replaced = front_matter(target.parent) if target.name == "README.md" else {}
    from sparsity_report.counting.checkpoint_writer import home_of

    home = home_of(read.weights) if read.weights is not None else None
    text = card(
        body,
        replaced or (front_matter(home) if home else {}),
        base_model=base_model or (hub_id(home) if home else None) or replaced.get("base_model"),
        library=replaced.get("library_name"),
        is_pruned=bool(read.facts.prunings),
    )
    return write_file(target, text)


def front_matter(folder: Path) -> dict[str, str]:
    """Return texts from the metadata of a local model card; empty where it cannot be read."""
    with suppress(Exception), open_file(folder / "README.md") as card:  # YAML raises many
        text = card.read(_READ).decode("utf-8", "replace")
        if text.startswith("---\n"):
            import yaml

            fields = _FIELD.findall(text.removeprefix("---\n").partition("\n---")[0])
            read = yaml.load("\n".join(fields[:99]), Loader=yaml.BaseLoader)
            return {key: value for key, value in read.items() if value and isinstance(value, str)}
    return {}
