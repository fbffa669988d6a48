"""The study in plain sentences with their numbers: said once, shown everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from sparsity_report.findings import quality_findings, rounding_findings, task_findings
from sparsity_report.findings.policy_findings import winners
from sparsity_report.findings.speed_findings import speed
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.comparison import Comparison
from sparsity_report.study.derived.layer_spread import Spread
from sparsity_report.study.files.digest import EDITED
from sparsity_report.study.layers import records
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.words.display_names import dtype_names, unpacked_name
from sparsity_report.words.number_format import percent
from sparsity_report.words.sentences import message, say, say_noted

_COUNTING = (
    message(
        "One multiply-add is two FLOPs; norms, biases, softmax, activations, convolutions, "
        "recurrences and attention scores are not counted."
    ),
    message(
        "Useful FLOPs are two per nonzero weight whatever the layout; dense kernels do not skip "
        "zeros."
    ),
    message(
        "CSR bytes are nnz·(v + i) + (rows + 1)·i for values of v bytes and indices of i bytes."
    ),
    message(
        "Shares of zeros name their denominator: the prunable weights; all parameters but "
        "embeddings and output head; all parameters of the model."
    ),
)
_EXPERTS = message(
    "Of a mixture of experts FLOPs are those of the router and the experts one token is sent to; "
    "where zeros count, in expectation over uniform routing."
)
_SEQUENCE = message(
    "What is done once per sequence, however long it is, such as by a pooler, is counted apart."
)
_TWO_STACKS = message(
    "FLOPs per token of an encoder-decoder are those of one source token through the encoder (and "
    "the keys and values of cross-attention) plus one target token through the decoder."
)
_TIES = {
    "standard": message(
        "An embedding look-up costs no FLOPs; a tied output head is stored and counted once, "
        "under the embedding, and costs 2·V·d FLOPs."
    ),
    "notebook": message(
        "Notebook convention: an embedding look-up is charged 2·V·d FLOPs, and a tied output head "
        "is counted again in totals and shares."
    ),
}

# What is said of zeros: variants that agree in it are spoken of together.
_ZEROS = (
    "asked_sparsity",
    "pruned",
    "prunable_total",
    "sparsity_prunable",
    "sparsity_non_embedding",
    "sparsity_model",
)


# Distinct numbers of zeros up to which each has a sentence of its own.
_SEVERAL = 2


def summarize(study: Comparison | Pair) -> list[str]:
    """Return what is worth knowing of a study, most important first.

    Of a study that was edited after it was written the first sentence says so. Where several
    policies prune to the same share of zeros the next say which is best at what. The first three
    others, where there is a pruned variant, say how much is zero of what,
    what that does to storage (of a packed model after what its file takes, and whether rounding
    explains its zeros), and what it does to the arithmetic. A pair of checkpoints says its own
    sentences, see :meth:`Pair.sentences`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> pruning = sr.global_magnitude(sr.load(), sparsity=0.3)
    >>> study = sr.compare(sr.dense(sr.load()), sr.masked(pruning), sr.csr(pruning))
    >>> print(sr.summarize(study)[1][:44])
    CSR30 stores 1.33 times the bytes of Dense (
    """
    if isinstance(study, Pair):
        return study.sentences()
    said = [say_noted(EDITED)] if EDITED in study.notes else []
    said += [
        *winners(study),
        *_zeros(study),
        *_packed(study),
        *rounding_findings.zeros_explained(study),
    ]
    said += [*_storage(study), *_arithmetic(study), *_kept_masked(study)]
    said += [*task_findings.smallest_layout(study), *task_findings.smaller_file(study)]
    said += speed(study)
    said += [
        *quality_findings.perplexities(study),
        *quality_findings.distances(study),
        *quality_findings.continued(study),
    ]
    said += [*task_findings.zero_shot(study), *task_findings.costliest_part(study)]
    said += [*_spread(study), *_unusual(study), *_active(study), *_attention(study)]
    return [*said, *_already_zero(study), *_unclassified(study)]


def headlines(study: Comparison) -> list[str]:
    """Return the first three sentences of a study, and all there is to say of what was measured."""
    first = summarize(study)[:3]
    parts = (
        task_findings.smaller_file,
        speed,
        quality_findings.perplexities,
        quality_findings.distances,
        quality_findings.continued,
        task_findings.zero_shot,
        task_findings.costliest_part,
    )
    told = [sentence for part in parts for sentence in part(study)]
    return [*first, *(sentence for sentence in told if sentence not in first)]


def conventions(study: Comparison) -> list[str]:
    """Return the conventions behind the numbers, to be printed with every table."""
    said = [*_COUNTING, _TIES[study.convention]]
    uses = study.layers["uses"].fillna(1)
    if ((uses > 0) & (uses < 1) & (study.layers["group"] == "mlp_linear")).any():
        said.append(_EXPERTS)
    if (study.layers["flops_per_sequence"] > 0).any():
        said.append(_SEQUENCE)
    words = {word for name in study.layers["module_name"] for word in name.split(".")}
    if {"encoder", "decoder"} <= words:
        said.append(_TWO_STACKS)
    return [say(sentence) for sentence in said]


def _alike(
    rows: pd.DataFrame, columns: Sequence[str]
) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield the variants whose rows agree in the columns, together, with the first of the rows."""
    for _, alike in rows.groupby(list(columns), sort=False, dropna=False):
        yield list(alike["variant"]), records(alike)[0]


def _zeros(study: Comparison) -> Iterator[str]:
    one = message(
        "{variants:names} sets {pruned:,} of {prunable_total:,} prunable weights to zero "
        "(asked {asked_sparsity:level}): {sparsity_prunable:percent} of the prunable weights, "
        "{sparsity_non_embedding:percent} of the non-embedding parameters, "
        "{sparsity_model:percent} of the whole model."
    )
    many = message(
        "{variants:names} set {pruned:,} of {prunable_total:,} prunable weights to zero "
        "(asked {asked_sparsity:level}): {sparsity_prunable:percent} of the prunable weights, "
        "{sparsity_non_embedding:percent} of the non-embedding parameters, "
        "{sparsity_model:percent} of the whole model."
    )
    known = study.totals["pruned"].notna() & study.totals["nonzero"].notna()
    found = list(_alike(study.totals[known], _ZEROS))
    if len(found) > _SEVERAL and study.totals.loc[known, "prunable_total"].nunique() == 1:
        yield _zeros_of_several(found)
        return
    for names, first in found:
        yield say(one if len(names) == 1 else many, variants=names, **first)


def _zeros_of_several(found: Sequence[tuple[list[str], dict[str, Any]]]) -> str:
    """Say at once how many weights of one model each of many prunings set to zero."""
    shares = ("sparsity_prunable", "sparsity_model")
    alike: dict[tuple[str, ...], tuple[list[str], dict[str, Any]]] = {}
    for names, row in sorted(found, key=lambda each: round(each[1]["sparsity_prunable"], 3)):
        # Whose counts differ by less than is shown are named together.
        named, _ = alike.setdefault(tuple(percent(row[share]) for share in shares), ([], row))
        named += names
    told = [
        say(
            "{sparsity_prunable:percent} in {variants:names} ({sparsity_model:percent} of the "
            "whole model)",
            variants=names,
            **row,
        )
        for names, row in alike.values()
    ]
    _, first = found[0]
    return say(
        "Zeros among the {number:,} prunable weights: {told:names}.",
        number=first["prunable_total"],
        told=told,
    )


def _packed(study: Comparison) -> Iterator[str]:
    facts = study.facts
    for row in records(study.totals):
        packings, bits = (f(row["variant"]) for f in (facts.packings, facts.bits_per_weight))
        if packings and bits is not None:
            yield say(
                "{variant} takes {file_bytes:scaled B} in the file, {bits:.2f} bits per weight "
                "({packings:names}); unpacked to {dtypes:names}, as it is counted here, "
                "{stored_bytes:scaled B}.",
                **row,
                bits=bits,
                packings=packings,
                dtypes=facts.unpacked_dtypes(row["variant"]),
            )


def _storage(study: Comparison) -> Iterator[str]:
    facts = study.facts
    pays = message(
        "{variant} stores {ratio:.2f} times the bytes of {base} ({bytes:scaled B} against "
        "{reference:scaled B}); CSR pays off with {dtypes:names} values and int32 indices from "
        "{level:percent} sparsity."
    )
    never = message(
        "{variant} stores {ratio:.2f} times the bytes of {base} ({bytes:scaled B} against "
        "{reference:scaled B}); CSR never pays off with {dtypes:names} values and int32 indices."
    )
    for variant in _sparse(study):
        if (times := facts.ratio(variant, "stored_bytes")) is None:
            continue
        layers, unpacked = facts.layers(variant), facts.unpacked_dtypes(variant)
        if not (dtypes := list(layers.loc[layers["layout"] == "csr", "dtype"].unique())):
            continue
        level = facts.break_even(variant)
        yield say(
            never if level is None else pays,
            variant=variant,
            ratio=times,
            base=unpacked_name(facts.baseline, facts.unpacked_dtypes(facts.baseline)),
            bytes=facts.total(variant, "stored_bytes"),
            reference=facts.total(facts.baseline, "stored_bytes"),
            dtypes=dtype_names(dtypes, unpacked),
            level=level,
        )


def _sparse(study: Comparison) -> list[str]:
    """Name the CSR variants that stand beside the baseline."""
    variants = study.variants
    names = variants.loc[variants["layout"] == "csr", "variant"]
    return [str(name) for name in names if name != study.facts.baseline]


def _arithmetic(study: Comparison) -> Iterator[str]:
    facts = study.facts
    if flops := facts.total(facts.baseline, "flops_per_token"):
        yield f"{say('; ').join(_per_token(study, flops))}."


def _per_token(study: Comparison, flops: float) -> Iterator[str]:
    facts, variants = study.facts, study.variants
    yield say("Per token {base} does {flops:scaled FLOPs}", base=facts.baseline, flops=flops)
    masked = variants.loc[variants["layout"] == "masked", "variant"]
    if same := [name for name in masked if facts.total(name, "flops_per_token") == flops]:
        yield say(
            "{variants:names} the same, because dense kernels do not skip zeros", variants=same
        )
    for variant in _sparse(study):
        if (times := facts.ratio(variant, "flops_per_token")) is not None:
            yield say(
                "{variant} does {flops:scaled FLOPs}, {ratio:.2f} times as many on paper",
                variant=variant,
                flops=facts.total(variant, "flops_per_token"),
                ratio=times,
            )


def _kept_masked(study: Comparison) -> Iterator[str]:
    """Name the layers that a CSR variant cannot store as CSR."""
    one = message(
        "{first} stays masked in {variants:names}, {share:percent} of the prunable weights: the "
        "model does not multiply by it as a linear layer does."
    )
    many = message(
        "{count:,} of {layers:,} prunable layers stay masked in {variants:names}, {share:percent} "
        "of the prunable weights, as the model does not multiply by them as a linear layer does: "
        "{layer_names:some}."
    )
    sparse = study.variants[study.variants["layout"] == "csr"]
    for variants, _ in _alike(sparse, ["fingerprint"]):
        prunable, kept = study.facts.prunable(variants[0]), study.facts.kept_masked(variants[0])
        if not kept.empty:
            yield say(
                one if len(kept) == 1 else many,
                count=len(kept),
                layers=len(prunable),
                variants=variants,
                share=ratio(kept["weight_total"].sum(), prunable["weight_total"].sum()),
                first=kept["module_name"].iloc[0],
                layer_names=list(kept["module_name"]),
            )


def _spread(study: Comparison) -> Iterator[str]:
    pruned = study.variants[study.variants["threshold"].notna()]
    found: list[tuple[list[str], float, Spread]] = []
    for names, first in _alike(pruned, ["fingerprint", "threshold"]):
        spread = study.facts.spread(names[0])
        prunable = study.facts.layers(names[0])["prunable"].sum()
        uneven = spread is not None and study.facts.uneven(names[0])
        if spread is not None and uneven and spread.layers >= prunable:
            found.append((names, first["threshold"], spread))
    of_each = message(
        "The zeros of {variants:names} are not spread evenly: one threshold, |w| ≤ "
        "{threshold:.4g}, takes {low:percent} of {least} and {high:percent} of {most}."
    )
    of_all = message(
        "The zeros of {variants:names} are not spread evenly, most unevenly those of {first}: "
        "one threshold, |w| ≤ {threshold:.4g}, takes {low:percent} of {least} and {high:percent} "
        "of {most}."
    )
    everyone = [name for names, *_ in found for name in names]
    if several := len(found) > _SEVERAL:
        found = [max(found, key=lambda each: each[2].high - each[2].low)]
    for names, threshold, spread in found:
        yield say(
            of_all if several else of_each,
            variants=everyone if several else names,
            first=names[0],
            threshold=threshold,
            **spread._asdict(),
        )


def _unusual(study: Comparison) -> Iterator[str]:
    """Name the matrix that differs most from a Gaussian of its own spread."""
    for variant in study.variants["variant"]:
        if (rows := study.facts.unusual(variant, 1)) is not None:
            yield say(
                "The most unusual matrix of {variant} is {parameter}: {sparsity:percent} "
                "zeros where a Gaussian of its spread would have {expected_sparsity:percent}.",
                **records(rows)[0],
            )
            return


def _active(study: Comparison) -> Iterator[str]:
    row = records(study.totals)[0]
    if row["active_total"] != row["total"]:
        yield say(
            "One token sees {active_total:scaled} of the {total:scaled} parameters stored, "
            "{share:percent}; the others are experts it is not sent to, or parts it does not come "
            "by.",
            **row,
            share=ratio(row["active_total"], row["total"]),
        )


def _attention(study: Comparison) -> Iterator[str]:
    if study.context is None:
        return
    unknown = message("FLOPs of attention scores are not known for this architecture.")
    known = message(
        "Attention over {positions:,} positions adds {cost:scaled FLOPs} per token, the same in "
        "every variant."
    )
    costs = study.totals["attention_flops_per_token"]
    if costs.nunique(dropna=False) > 1:
        unknown = message("FLOPs of attention scores of {variants:names} are not known.")
        known = message(
            "Attention over {positions:,} positions adds {cost:scaled FLOPs} per token in "
            "{variants:names}."
        )
    for names, first in _alike(study.totals, [str(costs.name)]):
        cost = first["attention_flops_per_token"]
        template = unknown if pd.isna(cost) else known
        yield say(template, positions=study.context, cost=cost, variants=names)


def _already_zero(study: Comparison) -> Iterator[str]:
    as_they_come = study.totals["pruned"].isna() & study.totals["nonzero"].notna()
    for row in records(study.totals[as_they_come]):
        if zeros := row["total"] - row["nonzero"]:
            yield say(
                "{variant} holds {zeros:,} zeros as it comes, {share:percent} of its parameters.",
                variant=row["variant"],
                zeros=zeros,
                share=row["sparsity_model"],
            )


def _unclassified(study: Comparison) -> Iterator[str]:
    if not (names := study.unclassified):
        return
    one = message(
        "{count:,} module matches no grouping rule and stands under other ({share:percent} of the "
        "parameters): {first}."
    )
    many = message(
        "{count:,} modules match no grouping rule and stand under other ({share:percent} of the "
        "parameters), first {first}."
    )
    # Of all models; variants of one have the same parameters.
    models = study.variants.drop_duplicates("fingerprint")["variant"]
    layers = study.layers[study.layers["variant"].isin(models)]
    share = ratio(layers.loc[layers["group"] == "other", "total"].sum(), layers["total"].sum())
    yield say(one if len(names) == 1 else many, count=len(names), share=share, first=names[0])
