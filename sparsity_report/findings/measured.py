"""What was measured, and what storage comes to, in plain sentences with their numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sparsity_report.measure.sensitivity import sensitivity_correlation
from sparsity_report.study.layers import records
from sparsity_report.study.study import Comparison
from sparsity_report.words.sentences import message, number, percent, say

# How layouts are called in sentences and tables.
LAYOUT_NAMES = {
    "dense": message("dense"),
    "csr_int16": message("CSR with int16 columns"),
    "csr_int32": message("CSR with int32 indices"),
    "csr_int64": message("CSR with int64 indices"),
    "coo_int32": message("COO with int32 indices"),
    "coo_int64": message("COO with int64 indices"),
    "bsr_4": "BSR 4 × 4",
    "bsr_8": "BSR 8 × 8",
    "bsr_16": "BSR 16 × 16",
    "bsr_32": "BSR 32 × 32",
    "bitmask": message("bitmask"),
    "2:4": "2:4",
}
STRUCTURE_NAMES = {
    "position": message("the position in the model"),
    "weight_total": message("the number of weights"),
    "threshold": message("the magnitude of what is pruned"),
    "std": message("the spread of the weights"),
    "global_sparsity": message("what global pruning would take"),
}


def smallest_layout(study: Comparison) -> list[str]:
    """Say which layout that loses nothing would be the smallest for the prunable weights."""
    frame = study.storage
    if frame.empty:
        return []
    asked = set(study.variants.loc[study.variants["pruned"].notna(), "variant"])
    own = frame[
        (frame["scope"] == "prunable")
        & frame["variant"].isin(asked)
        & frame["lossless"].fillna(False)
        & frame["bytes"].notna()
    ]
    together: dict[tuple[Any, ...], list[str]] = {}
    for variant, sizes in own.groupby("variant", sort=False):
        best = sizes.iloc[int(sizes["bytes"].astype("int64").argmin())]
        together.setdefault((best["layout"], best["ratio"], len(sizes)), []).append(str(variant))
    return [
        say(
            "The smallest of {count} lossless layouts for the prunable weights of "
            "{variants:names} is {layout}, at {ratio:.2f} times their dense bytes.",
            count=count,
            variants=variants,
            layout=say(LAYOUT_NAMES[layout]),
            ratio=ratio,
        )
        for (layout, ratio, count), variants in together.items()
    ]


def speed(study: Comparison) -> list[str]:
    """Say how fast variants ran against what their FLOPs promise, and where CSR overtakes."""
    frame = study.latency
    if frame is None or frame.empty:
        return []
    base = reference(frame)
    said = []
    whole = frame[frame["scope"] == "model"]
    for variant, own in whole[whole["variant"] != base].groupby("variant", sort=False):
        promised = own["promised_speedup"].iloc[0]
        said.append(
            say(
                "With {tokens:names} tokens at a time {variant} runs {speeds:names} times as fast "
                "as {base} on this machine ({threads} threads); its FLOPs promise {promised}.",
                tokens=[number(n, ",") for n in own["tokens"]],
                variant=str(variant),
                speeds=[number(n, ".2f") for n in own["realised_speedup"]],
                base=base,
                threads=int(own["threads"].iloc[0]),
                promised="–" if pd.isna(promised) else number(promised, ".2f"),
            )
        )
    layers = frame[(frame["scope"] == "layer") & (frame["variant"] == base)]
    if layers["crossover_sparsity"].notna().any():
        edges = [_overtakes(tokens, own) for tokens, own in layers.groupby("tokens")]
        said.append(
            say(
                "Sparsity from which CSR layers overtake dense ones here, by tokens at a time: "
                "{edges}.",
                edges=say("; ").join(edges),
            )
        )
    return said


def _overtakes(tokens: Any, layers: pd.DataFrame) -> str:
    known = layers["crossover_sparsity"].dropna()
    if known.empty:
        return say("never with {tokens:,}", tokens=tokens)
    low, high = percent(known.min(), 0), percent(known.max(), 0)
    one, several = message("{low} with {tokens:,}"), message("{low} to {high} with {tokens:,}")
    span = say(one if low == high else several, low=low, high=high, tokens=tokens)
    if len(known) == len(layers):
        return span
    return say("{span} ({of} of {shapes} shapes)", span=span, of=len(known), shapes=len(layers))


def tokens_name(tokens: int) -> str:
    """Write a number of tokens."""
    one, several = message("{tokens:,} token"), message("{tokens:,} tokens")
    return say(one if tokens == 1 else several, tokens=tokens)


def knowledge(study: Comparison) -> list[str]:
    """Say what perplexity and accuracy are left, and which part costs most."""
    said = []
    if study.quality is not None and not study.quality.empty:
        for text, own in study.quality.groupby("text", sort=False):
            first = own.iloc[0]
            rows = records(own[own["variant"].isin(set(study.variants["variant"]))])
            scores = [
                say(
                    "{perplexity} for {variant} ({top1:percent} first guesses right)",
                    perplexity="–" if pd.isna(r["perplexity"]) else number(r["perplexity"], ",.2f"),
                    variant=r["variant"],
                    top1=r["top1"],
                )
                for r in rows
            ]
            if scores:
                said.append(
                    say(
                        "Perplexity on {text} ({scored:,} tokens scored in windows of "
                        "{window:,}) is {scores:names}.",
                        text=text,
                        scored=int(first["scored"]),
                        window=int(first["window"]),
                        scores=scores,
                    )
                )
    return said + _sensitive(study)


def _sensitive(study: Comparison) -> list[str]:
    frame = study.sensitivity
    if frame is None or len(frame) < 2:
        return []
    increase = frame["nll_increase"].astype(float)
    worst, least = frame.iloc[int(increase.argmax())], frame.iloc[int(increase.argmin())]
    said = [
        say(
            "Pruned alone at {level:level}, {worst} costs most ({most:+.3f} nats per token) and "
            "{least} least ({little:+.3f}).",
            level=float(round(frame["sparsity"].iloc[0], 4)),
            worst=worst["part"],
            most=worst["nll_increase"],
            least=least["part"],
            little=least["nll_increase"],
        )
    ]
    best = sensitivity_correlation(frame).iloc[0]
    if pd.notna(best["rho"]):
        said.append(
            say(
                "Over {parts} parts sensitivity goes most with {structure} (Spearman's ρ = "
                "{rho:+.2f}).",
                parts=int(best["parts"]),
                structure=say(STRUCTURE_NAMES[best["structure"]]),
                rho=best["rho"],
            )
        )
    return said


def reference(latency: pd.DataFrame) -> str:
    """Name the variant whose speed-up is 1 by definition."""
    steady = (latency["realised_speedup"] == 1).groupby(latency["variant"], sort=False).all()
    return str(steady.index[int(steady.argmax())])
