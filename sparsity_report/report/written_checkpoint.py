"""A variant as a folder of safetensors files, with a model card."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sparsity_report
from sparsity_report.counting.checkpoint_layout import Layout, layout_of
from sparsity_report.counting.checkpoint_writer import check_place, home_of, write_weights
from sparsity_report.counting.progress import Progress
from sparsity_report.errors import SparsityReportError
from sparsity_report.report.hub_card import card, check_base, front_matter
from sparsity_report.report.markdown_report import paragraph
from sparsity_report.study.layers import total_frame
from sparsity_report.study.variants import Variant
from sparsity_report.weights.sources.model_paths import hub_id
from sparsity_report.words.display_names import method_name
from sparsity_report.words.sentences import say


def write_checkpoint(
    variant: Variant,
    folder: str | os.PathLike[str],
    *,
    unpack: bool = False,
    base_model: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a model as a folder of safetensors files, its pruned weights set to zero, or as GGUF.

    Files of a safetensors model keep their names, headers, dtypes and all values that are not
    pruned. Where a packed weight is pruned, and for GGUF files, pickles, adapters and modules, new
    files hold the unpacked values. Configuration and tokenizer are copied, code is not, and
    ``README.md`` is a model card. The folder appears when it is complete and the zeros of every
    parameter were counted again. Values are read and written slice by slice.

    A path that ends with ``.gguf`` is one file, also for a model in shards, with the kept experts
    of a GGUF model. Blocks, tokenizer and other metadata keep their bytes, and only the number of
    experts changes; keys of shards are left out. The written bytes are compared with the source.

    Parameters
    ----------
    variant : Variant
        From :func:`masked` or :func:`without_experts`, or from :func:`dense` for the weights as
        they are.
    folder : path-like
        New or empty folder, not inside the model that is read, or a new GGUF file.
    unpack : bool
        Whether to unpack packed weights even if none of them is pruned.
    base_model : str, optional
        Hub id of the model that was pruned, for the card; by default that of a model from the Hub.
    progress : callable, optional
        Called with the bytes written, the bytes in all and the name of the folder.

    Returns
    -------
    pathlib.Path
        The folder or file.

    Raises
    ------
    SparsityReportError
        The folder cannot be written, the weights changed since they were counted, or the written
        zeros differ from the derived ones. Nothing is left behind.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> import tempfile
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = sr.write_checkpoint(sr.masked(pruning), f"{folder}/demo")
    ...     sr.dense(path).is_pruned
    True
    """
    if not isinstance(variant, Variant) or variant.layout == "csr":
        raise SparsityReportError(
            "write_checkpoint() accepts a variant of dense(…) or masked(…); no format of "
            "checkpoints holds CSR"
        )
    check_base(base_model)
    target = Path(folder)
    check_place(variant.weights, target, bool(unpack or variant.pruning))
    layout = layout_of(variant.weights, variant.pruning, unpack, target.name)
    texts = {} if layout.alignment else {"README.md": _card(variant, layout, base_model)}
    write_weights(variant.weights, variant.pruning, layout, target, texts, progress)
    return target


def _card(variant: Variant, layout: Layout, base_model: str | None) -> str:
    """Return the model card."""
    architecture, home = variant.weights.architecture, home_of(variant.weights)
    # Files have a class of transformers; a module may have one of the user.
    is_known = bool(architecture and home) or architecture in dir(sys.modules.get("transformers"))
    return card(
        "\n\n".join(_text(variant, layout, is_known)) + "\n",
        front_matter(home) if home else {},
        base_model=base_model or (hub_id(home) if home else None),
        library="transformers" if is_known else None,
        is_pruned=bool(variant.pruning or variant.kept),
    )


def _text(variant: Variant, layout: Layout, is_known: bool) -> Iterator[str]:
    """Yield the paragraphs of the card."""
    weights, pruning = variant.weights, variant.pruning
    total: Any = total_frame(variant.layers()).iloc[0]
    figures = {
        "model": weights.name,
        "zeros": total["prunable_total"] - total["prunable_nonzero"],
        "prunable": total["prunable_total"],
        "share": total["sparsity_prunable"],
        "parameters": total["total"],
        "model_share": total["sparsity_model"],
    }
    yield f"# {paragraph(say('card.title', model=weights.name, variant=variant.name))}"
    notes = [*variant.notes]
    if kept := variant.kept:
        before = sum(p.total for p in kept.weights.stored)
        counts = {"model": kept.weights.name, "before": before, "parameters": total["total"]}
        yield paragraph(say("card.experts_parameters", **counts))
        yield paragraph(say("card.experts", note=notes.pop(0)))
    if figures["zeros"] or not kept:
        yield paragraph(say("card.zeros", **figures))
    if pruning:
        yield paragraph(say("card.policy", method=method_name(pruning.method)))
    for note in notes:
        yield paragraph(say("card.basis", note=note))
    packings = sorted({p.packing for p in weights.parameters if p.packing})
    if layout.unpacks and packings:
        yield paragraph(say("card.unpacked", packings=packings))
    key = "card.size" if pruning or not variant.kept else "card.bytes"
    yield paragraph(say(key, bytes=sum(layout.sizes.values())))
    if is_known:
        lines = f"import transformers\n\nmodel = transformers.{weights.architecture}"
        yield f'```python\n{lines}.from_pretrained(".")\n```'
    yield paragraph(say("card.tool", version=sparsity_report.__version__))
