"""Frames of measurements whose numbers are made up."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.stats

from sparsity_report.study.schema import TABLES, typed

TEXT = {
    "protocol": "sliding", "dtype": "float32", "text": "some.txt",
    "text_fingerprint": "0123456789abcdef",
}  # fmt: skip


def frame(table, rows):
    return typed(table, pd.DataFrame(rows, columns=list(TABLES[table])))


def put_in(study, **frames):
    """Put in what contradicts the study, which ``with_measured`` refuses."""
    return replace(study, **{part: typed(part, frame) for part, frame in frames.items()})


def latency(variants=("Dense", "Masked30", "CSR30"), edges=(0.62, None)):
    rows = []
    for tokens, edge in zip((1, 128), edges, strict=True):
        for variant, speed in zip(variants, (1.0, 0.98, 0.4), strict=True):
            row = {
                "variant": variant, "tokens": tokens, "seconds": 2.0 / speed,
                "seconds_low": 1.9 / speed, "seconds_high": 2.2 / speed, "runs": 19,
                "promised_speedup": 1.25 if variant == variants[-1] else 1.0,
                "realised_speedup": speed, "realised_low": 0.95 * speed,
                "realised_high": 1.05 * speed, "control": variants[1], "control_low": 0.93,
                "control_high": 1.04, "threads": 2, "cores": 4, "others": 0.25, "load": 2.5,
                "cache_bytes": 2**25, "machine": "some machine",
            }  # fmt: skip
            if variant == variants[0]:
                row |= {"realised_low": 1.0, "realised_high": 1.0}
            layer = {
                "scope": "layer", "name": "8 × 4", "cache": "out of cache", "weight_bytes": 16,
                "crossover_sparsity": edge,
                "crossover_low": 0.99 if edge is None else edge - 0.04,
                "crossover_high": None if edge is None else edge + 0.05,
            }  # fmt: skip
            rows.append({**row, **layer})
            rows.append({**row, "scope": "model", "name": "whole forward"})
    return frame("latency", rows)


def quality(levels=((0.0, 10.0), (0.3, 12.5), (0.9, 1234.0)), names=("Dense", "Masked30", "M90")):
    rows = [
        {"variant": name, "layout": "masked", "sparsity": s, "perplexity": p, "nll": math.log(p),
         "top1": 0.25, "against": names[0], "kl": place / 8, "agreement": (99 - 33 * place) / 99,
         "flips": 11 * place / 99, "scored": 99, "tokens": 100, "window": 64, "stride": 32, **TEXT}
        for place, (name, (s, p)) in enumerate(zip(names, levels, strict=True))
    ]  # fmt: skip
    return frame("quality", rows)


def continuations(names=("Dense", "Masked30", "CSR30")):
    rows = [
        {"variant": name, "prompt": "import", "continuation": f" os # {place}"}
        for place, name in enumerate(names)
    ]
    return frame("continuations", rows)


def sensitivity(parts):
    rows = [
        {"by": "block", "part": f"block {n}", "modules": 2, "weight_total": 10, "pruned": 5,
         "sparsity": 0.5, "perplexity": 9.0, "dense_perplexity": 8.0,
         "nll_increase": 0.1 / (n + 1) - 0.01, "top1": 0.25, "top1_drop": 0.0, "threshold": 0.1,
         "std": n, "global_sparsity": 0.5, "window": 64, "stride": 32, **TEXT}
        for n in range(parts)
    ]  # fmt: skip
    return frame("sensitivity", rows)


def tasks(variants=("Dense", "Masked30")):
    rows = [
        {"variant": variant, "task": task, "metric": "acc", "filter": "none",
         "value": value - 0.125 * n, "stderr": 0.015625, "higher_is_better": True, "n_shot": 0,
         "samples": 1000, "task_version": "1.0", "evaluated_model": f"some/{variant}",
         "harness": "lm-evaluation-harness", "harness_version": "0.4.9",
         "results_file": "results.json", "results_fingerprint": "0123456789abcdef"}
        for n, variant in enumerate(variants)
        for task, value in (("boolq", 0.75), ("arc_easy", 0.625))
    ]  # fmt: skip
    return frame("tasks", rows)


def seven(variant, model, less):
    """Scores of the seven tasks that pruning papers compare by."""
    values = {
        "boolq": 0.75, "rte": 0.625, "hellaswag": 0.5, "winogrande": 0.6875, "arc_easy": 0.71875,
        "arc_challenge": 0.375, "openbookqa": 0.3125,
    }  # fmt: skip
    rows = [
        {"variant": variant, "task": task, "metric": "acc", "filter": "none",
         "value": value - less, "stderr": 0.015625 + less / 8, "n_shot": 0, "limited": False,
         "evaluated_model": model, "harness": "lm-evaluation-harness", "harness_version": "0.4.9",
         "results_file": f"{variant}.json", "results_fingerprint": "0123456789abcdef"}
        for task, value in values.items()
    ]  # fmt: skip
    return frame("tasks", rows)


def with_losses(frame, sums, **cells):
    """Give scores the losses of spans of 16 tokens, and what follows from them.

    Parameters
    ----------
    frame : pandas.DataFrame
        From :func:`quality`.
    sums : sequence of sequence of float
        By row, nats per span.
    """
    spans = len(sums[0])
    nll = [sum(each) / (16 * spans) for each in sums]
    counts = tuple([4] * spans)
    about = {
        "scored": 16 * spans, "tokens": 16 * spans + 1, "span": 16, "top1": 0.25,
        "tokens_fingerprint": "fedcba9876543210", "nll": nll,
        "perplexity": [math.exp(each) for each in nll], "against": frame["variant"].iloc[0],
        "kl": 0.125, "agreement": 0.25, "flips": 0.0,
    }  # fmt: skip
    cells = about | cells
    lists = {
        "span_nll": [tuple(each) for each in sums],
        "span_hits": [counts] * len(sums), "span_agreed": [counts] * len(sums),
        "span_kl": [tuple([2.0] * spans)] * len(sums),
    }  # fmt: skip
    frame = frame.assign(**{key: pd.Series([cell] * len(frame), dtype=object) if not isinstance(
        cell, list) else cell for key, cell in cells.items()})  # fmt: skip
    return typed(
        "quality", frame.assign(**{k: pd.Series(v, dtype=object) for k, v in lists.items()})
    )


def mean_ends(sums, level=0.95):
    """The mean of spans of 16 tokens and its interval, by loops over blocks of spans."""
    means = np.divide(sums, 16)
    spans, block = len(means), round(math.sqrt(len(means)))
    around = means - means.mean()
    blocks = [sum(around[(n + k) % spans] for k in range(block)) for n in range(spans)]
    error = math.sqrt(np.mean(np.square(blocks)) / block / (spans - block))
    reach = error * scipy.stats.t.ppf((1 + level) / 2, spans // block - 1)
    return np.array([means.mean(), means.mean() - reach, means.mean() + reach])
