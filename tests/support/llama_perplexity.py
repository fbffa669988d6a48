"""Definitions of ``llama-perplexity --kl-divergence`` (ggml-org/llama.cpp, tools/perplexity).

Written from `log_softmax`, `process_logits` and `kl_divergence` of perplexity.cpp, with its types.
"""

import numpy as np

F32 = np.float32


def scored(window):
    """Places in a window whose tokens are scored: the second half without its first."""
    return np.arange(window // 2 + 1, window)


def quantized(logits):
    """Log-probabilities of the base as its file holds them: 16 bits from the largest down by 16."""
    top = logits.max(axis=1, keepdims=True)
    bottom = np.maximum(logits.min(axis=1, keepdims=True), top - F32(16))
    sums = np.log(np.exp(logits - top).sum(axis=1, keepdims=True, dtype=np.float64)).astype(F32)
    scale = (top - bottom) / F32(65535)
    codes = np.where(logits > bottom, np.rint((logits - bottom) / scale), 0).astype(np.uint16)
    return scale * codes + (bottom - top - sums)


def statistics(base, logits, tokens):
    """Figures of each token: KLD, both losses, Δp, same top."""
    base, logits = base.astype(F32), logits.astype(F32)
    logs = quantized(base)
    top = logits.max(axis=1, keepdims=True)
    sums = np.log(np.exp(logits - top).sum(axis=1, keepdims=True, dtype=np.float64)).astype(F32)
    terms = np.exp(logs) * (logs - logits + top + sums)
    kld = np.where(logs > -16, terms, 0).sum(axis=1, dtype=np.float64)
    rows = np.arange(len(tokens))
    nll = (top + sums - logits[rows, tokens][:, None])[:, 0]
    nll_base = -logs[rows, tokens]
    return {
        "kld": kld,
        "nll": nll,
        "nll_base": nll_base,
        "p_diff": np.exp(-nll) - np.exp(-nll_base),
        "same_top": logits.argmax(axis=1) == logs.argmax(axis=1),
    }


def percentile(values, fraction):
    """Its lambda: linear between the two neighbors of (n − 1)·fraction."""
    values = np.sort(values)
    place = fraction * (len(values) - 1)
    low = int(place)
    rest = place - low
    return (1 - rest) * values[low] + rest * values[min(low + 1, len(values) - 1)]
