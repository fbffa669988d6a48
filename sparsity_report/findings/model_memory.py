"""Memory to serve a model, from the headers of its files and its configuration."""

from __future__ import annotations

from typing import Any

from sparsity_report.weights.anatomy.cache_bytes import cache_bytes, parsed_memory
from sparsity_report.weights.anatomy.cache_geometry import checked
from sparsity_report.weights.outline import Outline
from sparsity_report.words.sentences import say

_FITS = {True: "count.fits_yes", False: "count.fits_no", None: "count.fits_unknown"}


def model_memory(
    outline: Outline, context: int | None, batch: int, kv_dtype: str | None, fits: str | None
) -> dict[str, Any]:
    """Return the bytes of weights as stored, keys and values, and states, as plain values.

    Bytes are null where unknown, and ``sentences`` say why. Activations, logits and the buffers of
    a runtime are not included. The arguments are those of :func:`.cache_bytes.cache_bytes`; `fits`
    is a size of memory, such as 24GB.
    """
    available = None if fits is None else parsed_memory(fits)
    shapes = {each.parameter.name: each.parameter.shape for each in outline.tensors}
    cache = checked(outline.config, shapes)
    keys_values, states, dtype, positions = cache_bytes(cache, context, batch, kv_dtype)
    weights = sum(each.stored_bytes for each in outline.tensors)
    parts = {"weights": weights, "keys_values": keys_values, "states": states}
    is_known = keys_values is not None and states is not None
    total = weights + keys_values + states if is_known else None  # type: ignore[operator]
    asked = {"positions": positions, "batch": batch, "dtype": dtype}
    sentences = [say("count.memory", **asked, **parts, total=total)]
    if cache.reason:
        sentences.append(say("count.unknown_cache", reason=say(f"cache.{cache.reason}")))
    if cache.limit and positions > cache.limit:
        sentences.append(say("count.beyond_limit", positions=positions, limit=cache.limit))
    spare = None
    if available is not None and fits is not None:
        # The weights alone may not fit, whatever the cache takes.
        spare = None if total is None and weights <= available else available - (total or weights)
        difference = {"size": fits.strip(), "bytes": abs(spare or 0)}
        sentences.append(say(_FITS[None if spare is None else spare >= 0], **difference))
    return {
        "context": positions,
        "batch": batch,
        "kv_dtype": dtype,
        **parts,
        "total": total,
        "available": available,
        "fits": None if spare is None else spare >= 0,
        "sentences": [str(each) for each in sentences],
    }
