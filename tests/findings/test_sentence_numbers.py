"""Every number in every sentence, read back and compared with arithmetic on the frames.

Numbers are found by the words around them in the catalogue; the expected ones are computed here
from the rows of modules, and written by formatters of our own.
"""

import ast
import functools
import itertools
import json
import math
import re
import tempfile
from pathlib import Path

import experts
import harnesses
import measurements
import numpy as np
import packing
import pandas as pd
import pytest
import torch
import transformers
from helpers import Tiny, small_llama, study_of
from scipy import stats
from torch import nn
from wording import check_length, rule_of, statements_of, wording

import sparsity_report as sr
from sparsity_report.findings.audit import audit
from sparsity_report.findings.study_findings import study_findings
from sparsity_report.findings.verdict import verdict
from sparsity_report.study.derived.paired_scores import ranked_parts
from sparsity_report.study.harness_results import pack
from sparsity_report.words.catalogue import catalogue
from sparsity_report.words.display_names import method_name
from sparsity_report.words.sentences import say

FINDINGS = Path(sr.__file__).parent / "findings"
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GROUPS = {
    "embedding": "embedding", "attention_linear": "attention", "mlp_linear": "MLP",
    "lm_head": "output head", "norm": "norm", "other": "other",
}  # fmt: skip


def pct(share, digits=1):
    text = f"{100 * share:.{digits}f}"
    low, high = f"{0:.{digits}f}", f"{100:.{digits}f}"
    if text == low and share > 0:
        return f"< {10**-digits:.{digits}f}"
    if text == high and share < 1:
        return f"> {100 - 10**-digits:.{digits}f}"
    return text


def whole(number):
    return f"{number:,}".replace(",", "\u202f")


def hundredths(number):
    return f"{number:,.2f}".replace(",", "\u202f")


def si(value, unit):
    mantissa, exponent = f"{value:.2e}".split("e")
    step, left = divmod(int(exponent), 3)
    if step <= 0:
        return f"{value:.0f} {unit}".strip()
    return f"{float(mantissa) * 10**left:.{2 - left}f} {' kMGT'[step]}{unit}"


def listed(words):
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def few(names):
    more = [f"{whole(len(names) - 3)} more"] if len(names) > 3 else []
    return listed([*names[:3], *more])


def split(text):
    return re.split(", | and ", text)


def layers(study, variant):
    return study.layers[study.layers["variant"] == variant]


def prunable(study, variant):
    rows = layers(study, variant)
    rows = rows[rows["prunable"]]
    return rows.assign(share=1 - rows["weight_nonzero"] / rows["weight_total"])


def row(study, variant):
    return study.variants.set_index("variant").loc[variant]


def dense_name(study):
    dense = study.variants["layout"] == "dense"
    return study.variants["variant"][dense if dense.any() else [0]].iloc[0]


def zeros_of(rows):
    return pct(1 - rows["nonzero"].sum() / rows["total"].sum())


# What each sentence promises, computed again.
def opened_zero_count(study, name):
    """Zeros of the prunable weights before a pruning, from the opened model."""
    same = study.variants["fingerprint"] == row(study, name)["fingerprint"]
    as_opened = study.variants[same & study.variants["method"].isna()]["variant"]
    if len(as_opened):
        return zeros_and_weights(prunable(study, as_opened.iloc[0]))[0]
    return sum(int((study.weights.tensor(p.name) == 0).sum()) for p in study.weights.prunable)


def newly_zeroed(study, said):
    name = split(said["variants"].removeprefix("each of "))[0]
    asked = row(study, name)["asked_sparsity"]
    same = study.variants[study.variants["asked_sparsity"] == asked]["variant"]
    zeros, total = zeros_and_weights(prunable(study, name))
    new = zeros - opened_zero_count(study, name)
    return {
        "variants": listed(list(same)), "newly_zeroed": whole(new), "prunable_total": whole(total),
        "share": pct(new / total), "of_model": pct(new / layers(study, name)["total"].sum()),
    }  # fmt: skip


def of_one_pruning(expected):
    """The sentence names no variant: it is true of one of them."""

    def of_any(study, said):
        names = study.variants.loc[study.variants["pruned"].notna(), "variant"]
        each = [expected(study, name) for name in names]
        return said if said in each else each

    return of_any


def zeros_before(study, name):
    zeros, total = zeros_and_weights(prunable(study, name))
    return {
        "zeros_before": whole(opened_zero_count(study, name)),
        "zeros": whole(zeros),
        "sparsity_prunable": pct(zeros / total),
    }


def zeros_elsewhere(study, name):
    rows, (zeros, _) = layers(study, name), zeros_and_weights(prunable(study, name))
    all_zeros = rows["total"].sum() - rows["nonzero"].sum()
    return {"elsewhere": whole(all_zeros - zeros), "sparsity_model": zeros_of(rows)}


def zeros_and_weights(rows):
    weights = int(rows["weight_total"].sum())
    return weights - int(rows["weight_nonzero"].sum()), weights


def prunable_tensors(study):
    weights = study.weights
    return {p.name: weights.tensor(p.name).double().numpy() for p in weights.prunable}


def opened_zeros(study, said):
    name = split(said["variants"])[0]
    rows, (zeros, total) = layers(study, name), zeros_and_weights(prunable(study, name))
    return {
        "zeros": whole(zeros), "prunable_total": whole(total),
        "sparsity_prunable": pct(zeros / total), "variants": said["variants"],
        "sparsity_non_embedding": zeros_of(rows[~rows["group"].isin(["embedding", "lm_head"])]),
        "sparsity_model": zeros_of(rows),
    }  # fmt: skip


def opened_place(study, said):
    """Zeros in groups of four, in heads, or else in whole rows and columns."""
    tensors = prunable_tensors(study)
    fits = [(np.count_nonzero(t.reshape(-1, 4), axis=1) <= 2).mean() for t in tensors.values()]
    if min(fits) >= 0.99:
        counts = {"matrices": whole(len(fits)), "among": f"{len(fits)} prunable matrices"}
        place = wording("existing.in.n_m", pattern="2:4", **counts)
    elif "heads" in said["place"]:
        place = wording("existing.in.heads", heads=whole(whole_heads(tensors)))
    else:
        rows = study.patterns[study.patterns["variant"] == said["variant"]]
        counts = [
            round((rows[f"zero_{lines}"] * rows[lines].astype(float)).sum())
            for lines in ("rows", "columns")
        ]
        place = wording("existing.in.rows", lines=whole_lines(counts))
    return {"variant": said["variant"], "place": place}


def whole_heads(tensors):
    heads, width = 0, 128 // 4
    for name, tensor in tensors.items():
        if "self_attn" in name:
            rows = tensor.T if "out_proj" in name else tensor
            heads += sum(not rows[at : at + width].any() for at in range(0, 128, width))
    return heads


def whole_lines(counts):
    pairs = zip(counts, ("all-zero row", "all-zero column"), strict=True)
    return listed([counted([number], line) for number, line in pairs if number])


def opened_lines(study, _):
    tensors = prunable_tensors(study).values()
    counts = [sum(int((~t.any(axis=axis)).sum()) for t in tensors) for axis in (1, 0)]
    return {"lines": whole_lines(counts)}


def opened_uneven_lines(study, _):
    """The lines whose sparsity has most times the deviation of random zeros."""
    ratios = {}
    for name, tensor in prunable_tensors(study).items():
        zeros, share = tensor == 0, np.mean(tensor == 0)
        for axis, lines in enumerate(("Rows", "Columns")):
            random = np.sqrt(share * (1 - share) / tensor.shape[1 - axis])
            std = zeros.mean(axis=1 - axis).std()
            module = name.removesuffix(".weight")
            ratios[std / random] = {"lines": lines, "module": module, "std": pct(std),
                                    "random_std": pct(random)}  # fmt: skip
    return ratios[max(ratios)]


def opened_shares(study, said):
    shares = {name: np.mean(t == 0) for name, t in prunable_tensors(study).items()}
    least, most = min(shares, key=shares.get), max(shares, key=shares.get)
    ends = [pct(shares[least]), pct(shares[most])]
    if "ends" in said:
        (share,) = set(ends)
        return {"variant": said["variant"], "ends": f"{share} %"}
    names = (name.removesuffix(".weight") for name in (least, most))
    return {"variant": said["variant"], **dict(zip(("low", "high"), ends, strict=True)),
            **dict(zip(("least", "most"), names, strict=True))}  # fmt: skip


def opened_smallest(study, _):
    smallest, expected = [], []
    for tensor in prunable_tensors(study).values():
        smallest.append(np.abs(tensor[tensor != 0]).min())
        share = np.mean(tensor == 0)
        cut = stats.norm.ppf((1 + share) / 2)
        # The mean square of what lies beyond the cut, by integration.
        square = 2 * stats.norm.expect(np.square, lb=cut, ub=np.inf)
        expected.append(cut * np.sqrt(np.var(tensor) / square))
    ends = [f"{end:.4g}" for end in (min(smallest), max(smallest))]
    return {
        "ends": ends[0] if ends[0] == ends[1] else " to ".join(ends),
        "matrices": whole(len(smallest)),
        "least": f"{np.median(smallest):.4g}",
        "expected": f"{np.median(expected):.4g}",
    }


def of_smallest(*names):
    return lambda study, said: {name: opened_smallest(study, said)[name] for name in names}


def size_of_csr(rows):
    """Bytes of CSR matrices of one matrix a module, values of four bytes."""
    pointers = sum(shape[0] + 1 for shape in rows["shape"])
    return 8 * rows["weight_nonzero"].sum() + 4 * pointers


def stores(study, said):
    size, base = (
        layers(study, name)["stored_bytes"].sum() for name in (said["variant"], dense_name(study))
    )
    whole = layers(study, said["variant"])
    rows = layers(study, said["variant"])
    rows = rows[rows["layout"] == "csr"]
    dense = full = empty = 0
    for module in rows.itertuples():
        weights, pointers = module.weight_total, module.shape[0] + 1
        if weights != math.prod(module.shape):  # fused experts: gate, up and down in one module
            pointers = 4 * (2 * 24 + 1) + 4 * (16 + 1)
        dense += weights * BYTES[module.dtype]
        full += weights * (BYTES[module.dtype] + 4) + pointers * 4
        empty += pointers * 4
    packed = rows["packing"].ne("").any()
    if packed:
        rest = whole["stored_bytes"].sum() - size_of_csr(rows)
        base = layers(study, dense_name(study))["file_bytes"].sum()
        dense, full, empty = base, full + rest, empty + rest
    digits = next(d for d in range(2, 9) if size == base or float(f"{size / base:.{d}f}") != 1)
    expected = {
        "variant": said["variant"], "ratio": f"{size / base:.{digits}f} ×",
        "base": f"the file of {dense_name(study)}" if packed else dense_name(study),
        "bytes": si(size, "B"), "reference": si(base, "B"),
        "dtypes": "unpacked float32" if packed else listed(list(dict.fromkeys(rows["dtype"]))),
        "level": pct((full - dense) / (full - empty)),
    }  # fmt: skip
    if empty >= dense:
        del expected["level"]
    return expected


def takes(study, said):
    rows = layers(study, said["variant"])
    return {
        "variant": said["variant"], "file_bytes": si(rows["file_bytes"].sum(), "B"),
        "bits": f"{8 * rows['file_bytes'].sum() / rows['total'].sum():.2f}",
        "packings": listed(sorted({*rows["packing"]} - {""})), "dtypes": "float32",
        "stored_bytes": si(rows["stored_bytes"].sum(), "B"),
    }  # fmt: skip


def rounded(study, said):
    """Return packed weights apart by whether their format has a zero."""
    rows = layers(study, said["variant"])
    rows = rows[rows["expected_rounding_sparsity"].notna()]
    rows = rows[rows["near_zero_share"].notna() == ("near_zero" in said)]
    weights = rows["weight_total"]
    shares = {
        "sparsity": (weights - rows["weight_nonzero"]).sum(),
        "near_zero": (weights * rows["near_zero_share"]).sum(),
        "expected": (weights * rows["expected_rounding_sparsity"]).sum(),
    }
    written = {key: pct(count / weights.sum()) for key, count in shares.items() if key in said}
    return {
        "variant": said["variant"], "weights": whole(weights.sum()),
        "packings": listed(sorted({*rows["packing"]})), **written,
    }  # fmt: skip


def performed_flops(study, said):
    """All variants with the FLOPs of the first one, but those of CSR are alone."""
    sums = study.layers.groupby("variant", sort=False)["flops_per_token"].sum()
    first, *_ = split(said["variants"])
    csr = set(study.variants.loc[study.variants["layout"] == "csr", "variant"])
    alike = [name for name in sums[sums == sums[first]].index if name not in csr]
    names = [first] if first in csr else alike
    return {"variants": listed(names), "flops": si(sums[first], "FLOPs")}


def common_flops(study, _):
    (flops,) = study.layers.groupby("variant")["flops_per_token"].sum().unique()
    return {"flops": si(flops, "FLOPs")}


def masked_flops(study, _):
    assert not study.variants.query("layout == 'masked'").empty
    return {}


def csr_flops(study, said):
    mine, dense = (
        layers(study, name)["flops_per_token"].sum()
        for name in (said["variant"], dense_name(study))
    )
    return {
        "variant": said["variant"], "flops": si(mine, "FLOPs"), "base": dense_name(study),
        "fewer": pct(1 - mine / dense, 0),
    }  # fmt: skip


def kept_masked(study, _):
    names = study.variants["variant"][study.variants["layout"] == "csr"]
    inside = prunable(study, names.iloc[0])
    kept = inside[inside["layout"] != "csr"]
    return {
        "variants": listed(list(names)),
        "share": pct(kept["weight_total"].sum() / inside["weight_total"].sum()),
        "names": few(list(kept["module_name"])),
        "count": f"{len(kept)}",
        "layers": counted([len(inside)], "prunable layer"),
    }


def uneven(study, _):
    pruned, rows = row(study, study.facts.pruning), prunable(study, study.facts.pruning)
    least, most = (rows.loc[end(rows["share"])] for end in (pd.Series.idxmin, pd.Series.idxmax))
    return {
        "asked_sparsity": f"{100 * pruned['asked_sparsity']:g}", "method": "global magnitude",
        "rule": f"single threshold |w| ≤ {rule_of(pruned['threshold'])}",
        "low": pct(least["share"]), "least": least["module_name"], "high": pct(most["share"]),
        "most": most["module_name"],
    }  # fmt: skip


def active(study, _):
    rows = layers(study, study.variants["variant"].iloc[0])
    seen, stored = rows["active_total"].sum(), rows["total"].sum()
    return {"active_total": si(seen, ""), "total": si(stored, ""), "share": pct(seen / stored)}


def attention(study, said):
    cost = row(study, split(said["variants"])[0])["attention_flops_per_token"]
    alike = study.variants["attention_flops_per_token"] == cost
    return {
        "positions": whole(study.context),
        "cost": si(float(cost), "FLOPs"),
        "variants": few(list(study.variants["variant"][alike])),
    }


def attention_unknown(study, _):
    unknown = study.variants["attention_flops_per_token"].isna()
    return {"variants": few(list(study.variants["variant"][unknown]))}


def variants_of_models(study):
    return study.variants.groupby("model", sort=False)["variant"]


def unclassified(study, _):
    of_models = [layers(study, names.iloc[0]) for _, names in variants_of_models(study)]
    rows = pd.concat(of_models)
    other = rows[rows["group"] == "other"]
    return {
        "count": counted([len(other)], "module"),
        "share": pct(other["total"].sum() / rows["total"].sum()),
        "names": few(list(other["module_name"])),
    }


def twice(rows):
    """How far the same kernel was from itself: the larger of both ways."""
    return f"{max(rows['control_high'].max(), 1 / rows['control_low'].min()):.2f}"


def counted(numbers, what):
    return f"{listed([whole(n) for n in numbers])} {what}{'' if numbers == [1] else 's'}"


def told_of(study, said, holds):
    """Whole forward passes of a variant for which a rule, written out here, holds."""
    rows = study.latency[study.latency["variant"] == said["variant"]].query("scope == 'model'")
    rows = rows[[bool(holds(row)) for row in rows.to_dict("records")]]
    return rows, {
        "tokens": counted([*rows["tokens"]], "token"),
        "variant": said["variant"],
        "base": dense_name(study),
    }


def timed_well(row):
    idle = row["others"] <= row["cores"] - 0.9 * row["threads"]
    is_known = row["control_low"] == row["control_low"] and row["seconds"] != 16
    return idle and row["runs"] >= 15 and is_known


def holds_one(row):
    return row["control_low"] <= 1.02 and row["control_high"] >= 1 / 1.02


def beyond(row):
    band = max(1.02, row["control_high"], 1 / row["control_low"])
    return row["realised_low"] > band or row["realised_high"] < 1 / band


def runs(study, said):
    rows, told = told_of(
        study, said, lambda row: timed_well(row) and holds_one(row) and beyond(row)
    )
    columns = ("realised_speedup", "realised_low", "realised_high")
    speeds = [[f"{row[column]:.2f}" for column in columns] for row in rows.to_dict("records")]
    return told | {
        "speeds": listed([f"{ratio} ({low} to {high})" for ratio, low, high in speeds]),
        "threads": counted([rows["threads"].iloc[0]], "thread"),
        "promised": f"{rows['promised_speedup'].iloc[0]:.2f}",
    }


def no_difference(study, said):
    rows, told = told_of(
        study, said, lambda row: timed_well(row) and holds_one(row) and not beyond(row)
    )
    ends = rows["realised_low"].min(), rows["realised_high"].max()
    low, high = (f"{end:.2f}" for end in ends)
    return told | {"low": low, "high": high, "fold": twice(rows)}


def never_settled(study, said):
    rows, told = told_of(study, said, lambda row: timed_well(row) and not holds_one(row))
    return told | {"fold": twice(rows)}


def beside_others(study, said):
    rows, told = told_of(study, said, lambda row: row["others"] > row["cores"] - 1.8)
    return told | {
        "others": f"{rows['others'].max():.1f}",
        "cores": f"{rows['cores'].iloc[0]}",
        "threads": "2",
    }


def too_few(study, said):
    rows, told = told_of(study, said, lambda row: row["runs"] < 15)
    return told | {"runs": f"{rows['runs'].min()}", "enough": "15"}


def without_control(study, said):
    return told_of(study, said, lambda row: pd.isna(row["control_low"]))[1]


def ticking(study, said):
    told = told_of(study, said, lambda row: row["seconds"] == 16)[1]
    return {key: told[key] for key in said}


def of_control(study, said):
    rows = study.latency[(study.latency["scope"] == "model") & study.latency["control_low"].notna()]
    names = {"control": "Masked30"} if "control" in said else {}
    return {"base": dense_name(study), "fold": twice(rows), **names}


def other_model(study, said):
    described = study.variants.set_index("variant").loc[said["variant"]]
    named = study.tasks.set_index("variant").loc[[said["variant"]], "evaluated_model"].unique()
    assert said["named"] in named
    return {"variant": said["variant"], "named": said["named"], "model": described["model"]}


def part_of_a_task(study, _):
    rows = study.tasks[study.tasks["limited"].fillna(False) & (study.tasks["variant"] == "CSR30")]
    return {"tasks": few(list(rows["task"].unique())), "variant": "CSR30"}


def unpaired(study, said):
    against, reason = said["against"], wording("unpaired.outcomes")
    assert study.tasks["outcomes"].isna().all()
    base = set(study.tasks.loc[study.tasks["variant"] == against, "task"])
    rows = study.tasks[(study.tasks["variant"] != against) & study.tasks["task"].isin(base)]
    names = {key: few([*rows[key].unique()]) for key in ("variant", "task")}
    return names | {"against": against, "reason": reason}


# Right answers of each variant to 100 and to 50 questions.
ANSWERS = {
    "Dense": (range(90), range(40)), "A": (range(2, 91), range(1, 41)), "B": (range(40), range(20)),
    "C": (range(5, 25), range(10)),
}  # fmt: skip


def flips(_, said):
    """Flips of both tasks together, from the sets of right answers."""
    one, other = ANSWERS[said["variant"]], ANSWERS[said["against"]]
    lost = sum(len({*b} - {*a}) for a, b in zip(one, other, strict=True))
    gained = sum(len({*a} - {*b}) for a, b in zip(one, other, strict=True))
    p = stats.binomtest(lost, lost + gained).pvalue
    numbers = {
        "documents": "150 documents",
        "lost": f"{lost} right answer{'s' * (lost != 1)}",
        "gained": str(gained),
        "difference": f"{100 * (gained - lost) / 150:+.1f}".replace("-", "−"),
    }
    low, high = (float(said[end].replace("−", "-")) for end in ("low", "high"))
    assert low < 100 * (gained - lost) / 150 < high
    assert (low <= 0 <= high) == (p >= 0.05 / 18)
    return {key: numbers.get(key, text) for key, text in said.items()}


def best_answers(_, said):
    assert said["variant"] == "A"
    return {"variant": "A", "tasks": listed(["x", "y"])}


def answered():
    weights = sr.load()
    levels = zip("ABC", (0.7, 0.5, 0.3), strict=True)  # the winner has most zeros
    variants = [sr.masked(sr.global_magnitude(weights, level), name=name) for name, level in levels]
    rows = [
        {"variant": variant, "task": task, "metric": "acc", "filter": "none",
         "value": len(right) / number, "harness": "h", "harness_version": "1",
         "outcomes": pack([place in right for place in range(number)]),
         **{f"{part}_fingerprint": task for part in ("documents", "targets", "prompts")}}
        for variant, answers in ANSWERS.items()
        for task, number, right in zip("xy", (100, 50), answers, strict=True)
    ]  # fmt: skip
    tasks = harnesses.padded(pd.DataFrame(rows))
    return sr.compare(sr.dense(weights), *variants).with_measured(tasks=tasks)


def continued(study, said):
    frame = study.continuations.query("prompt == @said['prompt']")
    rows = frame[frame["variant"].isin(split(said["variants"]))]
    (written,) = {" ".join(text.split()) for text in rows["continuation"]}
    alike = frame[frame["continuation"].map(lambda text: " ".join(text.split())) == written]
    (prompt,) = set(rows["prompt"])
    return {"prompt": prompt, "variants": listed(list(alike["variant"])), "continuation": written}


def alone(study, _):
    rows = study.sensitivity.sort_values("nll_increase", kind="stable")
    return {
        "level": f"{100 * rows['sparsity'].iloc[0]:g}", "worst": rows["part"].iloc[-1],
        "most": f"{rows['nll_increase'].iloc[-1]:+.3f}", "least": rows["part"].iloc[0],
        "little": f"{rows['nll_increase'].iloc[0]:+.3f}",
    }  # fmt: skip


def alone_ranked(study, _):
    ranks = ranked_parts(study.sensitivity)["rank"]
    values = {"first": f"{(ranks == 1).sum()}", "parts": f"{len(ranks)}"}
    return alone(study, _) | values


def alone_of(*names):
    return lambda study, said: {name: alone_ranked(study, said)[name] for name in names}


def told_apart(study, _):
    """The lower of two perplexities, and the interval of the gap by another way."""
    _, one, other = study.quality.sort_values("nll").to_dict("records")
    gaps = np.subtract(other["span_nll"], one["span_nll"]) / one["span"]
    wide = np.concatenate([gaps, gaps])
    block = round(math.sqrt(len(gaps)))
    means = [wide[n : n + block].mean() for n in range(len(gaps))]
    error = math.sqrt(np.var(means) * block / (len(gaps) - block))
    # Of three comparisons this is the last but for one, or the last of those that are left.
    ends = []
    for comparisons in (1, 2, 3):
        reach = error * stats.t.ppf(1 - 0.05 / comparisons / 2, len(gaps) // block - 1)
        ends.append([one["perplexity"] * math.expm1(gaps.mean() + k * reach) for k in (0, -1, 1)])
    return one, other, ends


HALF = "At" + say("level.sparsity", share=0.5)[2:]


def separates(study, said):
    one, other, ends = told_apart(study, said)
    signed = "{:+.2f}" if "gap" not in said else "{:.2f}"
    texts = [[signed.format(end).replace("-", "−") for end in each] for each in ends]
    assert [said["low"], said["high"]] in [each[1:] for each in texts]
    methods = study.variants.set_index("variant")["method"]
    values = {"level": HALF, "low": said["low"], "high": said["high"]}
    values["correction"] = ", Holm-corrected for 3 comparisons"
    if "gap" in said:
        values["gap"] = texts[0][0]
    sides = {"variant": one["variant"], "rival": other["variant"]}
    return values | {key: method_name(methods[name]) for key, name in sides.items()}


def guesses(study, _):
    _, one, other = study.quality.sort_values("nll").to_dict("records")
    tokens, _ = study.layers.loc[study.layers["group"] == "embedding", "shape"].iloc[0]
    assert one["perplexity"] < tokens < other["perplexity"]
    methods = study.variants.set_index("variant")["method"]
    sides = {"variant": one["variant"], "rival": other["variant"]}
    return {"level": HALF, **{key: method_name(methods[name]) for key, name in sides.items()}}


def some_blocks(study, said):
    rows = prunable(study, said["variant"])
    sums = rows.groupby("block")[["weight_total", "weight_nonzero"]].sum()
    share = 1 - sums["weight_nonzero"] / sums["weight_total"]
    inside = sums[share > 0.05].sum()
    return {
        "variant": said["variant"], "touched": f"{(share > 0.05).sum()}", "blocks": f"{len(share)}",
        "share": pct(1 - inside["weight_nonzero"] / inside["weight_total"]),
        "untouched": few([f"{block}" for block in share.index[share < 0.005]]),
    }  # fmt: skip


def very_sparse(study, said):
    rows = prunable(study, said["variant"])
    names = rows.loc[rows["share"] > 0.95, "module_name"].tolist()
    return {
        "variant": said["variant"], "count": f"{len(names)}", "layers": f"{len(rows)}",
        "limit": "95", "names": few(names),
    }  # fmt: skip


def tied_head(study, said):
    rows = layers(study, said["variant"]).set_index("module_name")
    owner = rows.loc[rows["group"] == "lm_head", "tied_to"].iloc[0]
    embedding = rows.loc[owner.removesuffix(".weight")]
    share = pct(1 - embedding["nonzero"] / embedding["total"])
    return {"variant": said["variant"], "head": "lm_head", "share": share, "owner": owner}


def dead_heads(study, said):
    rows = study.patterns[study.patterns["variant"] == said["variant"]]
    counts = [
        f"{r.module_name} ({heads})"
        for r in rows.itertuples()
        if r.head_sparsity is not None and (heads := list(r.head_sparsity).count(1.0))
    ]
    return {"variant": said["variant"], "modules": few(counts)}


def dead_lines(axis):
    def of_axis(study, said):
        rows = study.patterns[study.patterns["variant"] == said["variant"]]
        counts = {r.module_name: round(getattr(r, f"zero_{axis}") * getattr(r, axis))
                  for r in rows.itertuples()}  # fmt: skip
        most = sorted(filter(counts.get, counts), key=lambda name: -counts[name])
        return {"variant": said["variant"], "modules": few([f"{n} ({counts[n]})" for n in most])}

    return of_axis


def dead_layers(study, said):
    rows = prunable(study, said["variant"])
    names = rows.loc[rows["weight_nonzero"] == 0, "module_name"]
    return {"variant": said["variant"], "modules": few(list(names))}


def dead_of_each(kind):
    """Count the zero parts of each of several variants, and their matrices."""

    def of_kind(study, _):
        told = []
        for name in dict.fromkeys(study.patterns["variant"]):
            rows = study.patterns[study.patterns["variant"] == name]
            if kind == "heads":
                many = rows["head_sparsity"].map(lambda of: list(of or ()).count(1.0))
            elif kind == "layers":
                many = (rows["sparsity"] == 1).astype(int)
            else:
                many = (rows[f"zero_{kind}"] * rows[kind]).round().astype(int)
            matrices = (many > 0).sum()
            key = "audit.zero_count" if kind == "layers" else "audit.zero_count_in_matrices"
            inside = f"{matrices} {'matrix' if matrices == 1 else 'matrices'}"
            if matrices:
                count = whole(many.sum())
                told.append(wording(key, count=count, modules=inside, variants=name))
        return {"counts": listed(told)}

    return of_kind


def of_several(expected):
    """Check a sentence on several variants for the first and all others that it names."""

    def of_all(study, said):
        told = [expected(study, {"variant": name}) for name in split(said["variants"])]
        first = {key: value for key, value in told[0].items() if key != "variant"}
        assert all(first | {"variant": one["variant"]} == one for one in told)
        return first | {"variants": said["variants"]}

    return of_all


def left_out(study, said):
    of_model = study.variants[study.variants["model"] == said["model"]]
    rows = layers(study, of_model["variant"].iloc[0])
    reasons = {"embedding": "embeddings", "norm": "norms", "other": "unclassified"}
    reasons |= {"lm_head": "the output head", "router": "routers"}
    total, parts, kept = rows["total"].sum(), [], 0
    for group in dict.fromkeys(rows["group"]):
        part = rows[rows["group"] == group]
        closed = part["total"].sum() - part.loc[part["prunable"], "weight_total"].sum()
        kept += closed
        if closed:
            reason = reasons.get(group) or wording(
                "audit.excluded_biases_or_tied", group=GROUPS[group]
            )
            parts.append(wording("audit.excluded_share", reason=reason, count=whole(closed)))
    return {
        "count": whole(kept), "total": whole(total), "share": pct(kept / total),
        "model": said["model"], "parts": listed(parts),
    }  # fmt: skip


def own_text(study, said):
    basis = dict(zip(study.variants["variant"], study.variants["basis_fingerprint"], strict=True))
    rows = [r for r in study.quality.to_dict("records") if r["text"] == said["text"]]
    names = [r["variant"] for r in rows if basis.get(r["variant"]) == r["text_fingerprint"]]
    return {"variants": few(names), "text": said["text"]}


LAYOUTS_BY_NAME = {
    "a dense checkpoint with zeros": "zeros",
    "a dense checkpoint with 2:4 zeros": "2:4",
    "CSR tensors in a PyTorch state dict": "csr",
    "sparse-bitmask of compressed-tensors": "sparse-bitmask",
}


def stored_as(study):
    """The layout of the checkpoint that the first pruning, or the headline, is."""
    facts = study.facts
    variant = facts.pruning or facts.headline
    if "sparse-bitmask" in {*layers(study, variant)["packing"]}:
        return "sparse-bitmask"
    if row(study, variant)["layout"] == "csr":
        return "csr"
    method = f"{row(study, variant)['method']}"
    patterns = [] if study.patterns is None else study.patterns
    rows = patterns[patterns["variant"] == variant] if len(patterns) else pd.DataFrame()
    is_2_4 = len(rows) and (rows["n_m_share"] >= 0.99).all() and {*rows["n_m"]} <= {"2:4", "1:4"}
    return "2:4" if is_2_4 or re.search(r"\b2:4\b", method) else "zeros"


def of_runtimes(verdict):
    """Read the names of runtimes, maintained ones only, from the file of the table."""

    def reading(study, said):
        path = Path(sr.__file__).parent / "sparse" / "runtime_support.json"
        table = json.loads(path.read_text(encoding="utf-8"))
        maintained = [row for row in table["runtimes"] if row["ended"] is None]
        layout = "uneven" if "variant" in said else stored_as(study)
        if "layout" in said:
            (name,) = (n for n, each in LAYOUTS_BY_NAME.items() if each == layout)
            assert said["layout"].lower() == name.lower()
        names = [r["name"] for r in maintained if r["cells"][layout]["verdict"] == verdict]
        assert bool(names) == ("names" in said)
        told = {"date": table["looked_at"]}
        told |= {"names": few(names)} if names else {}
        facts = study.facts
        told |= {"layout": said.get("layout"), "variant": facts.pruning or facts.headline}
        return {key: told[key] for key in said}

    return reading


# By key: the values of a finding, computed again and written.
def gate_masses(study, name):
    rows = study.experts[study.experts["variant"] == name]
    return rows, dict(
        zip(zip(rows["module_name"], rows["expert"], strict=True), rows["gate_mass"], strict=True)
    )


def busiest_expert(study, _):
    """The largest gate mass × experts ÷ the module's, of a variant that has all experts."""
    rows, masses = gate_masses(study, "Dense")
    assert rows["is_kept"].all()
    per_module = {name: part["gate_mass"].sum() for name, part in rows.groupby("module_name")}
    counts = rows["module_name"].value_counts()
    uses = {key: mass / per_module[key[0]] * counts[key[0]] for key, mass in masses.items()}
    module, expert = max(uses, key=uses.get)
    return {
        "module_name": module, "expert": str(expert),
        "gate_share": pct(masses[module, expert] / per_module[module]),
        "expert_use": f"{hundredths(uses[module, expert])} ×",
        "experts": whole(int(counts[module])),
    }  # fmt: skip


def unreached_experts(study, _):
    rows, _ = gate_masses(study, study.experts["variant"].iloc[0])
    none = sum(tokens == 0 for tokens in rows["tokens"])
    return {"unreached": whole(none), "experts": counted([len(rows)], "expert")}


def kept_gate_mass(study, said):
    rows, masses = gate_masses(study, said["variant"])
    stay = [row for row in rows.to_dict("records") if row["is_kept"]]
    share = sum(row["gate_mass"] for row in stay) / sum(masses.values())
    return {
        "variant": said["variant"], "kept": whole(len(stay)), "experts": whole(len(rows)),
        "share": pct(share),
    }  # fmt: skip


READERS = {
    "finding.busiest_expert": busiest_expert,
    "finding.unreached_experts": unreached_experts,
    "finding.kept_gate_mass": kept_gate_mass,
    "finding.pruned_weights": newly_zeroed,
    "finding.zeros_before": of_one_pruning(zeros_before),
    "finding.zeros_elsewhere": of_one_pruning(zeros_elsewhere),
    "existing.zeros": opened_zeros,
    "existing.zeros_of_model": opened_zeros,
    "existing.place": opened_place,
    "existing.layers.even": opened_shares,
    "existing.layers.uneven": opened_shares,
    "existing.unsearched": lambda study, _: {} if study.patterns is None else None,
    "existing.zero_lines": opened_lines,
    "existing.uneven_lines": opened_uneven_lines,
    "existing.lines_as_random": lambda *_: {},
    "existing.kept.global": of_smallest("ends", "matrices"),
    "existing.kept.layerwise": of_smallest("least", "expected"),
    "existing.kept.other": of_smallest("least", "expected"),
    "finding.csr_break_even": stores,
    "finding.csr_no_break_even": stores,
    "finding.packed_bytes": takes,
    **{
        f"rounding.{near}zeros.{outcome}": rounded
        for near in ("", "near_")
        for outcome in ("alike", "more", "undecided")
    },
    "finding.flops_performed": performed_flops,
    "finding.flops_in_common": common_flops,
    "finding.flops_of_masked": masked_flops,
    "finding.flops_of_csr": csr_flops,
    "finding.layers_kept_masked": kept_masked,
    "finding.uneven_sparsity": uneven,
    "finding.active_parameters": active,
    "finding.attention_flops": attention,
    "finding.attention_flops_unknown": attention_unknown,
    "finding.unclassified_modules": unclassified,
    "finding.continuation": continued,
    "finding.sensitivity_extremes": alone,
    "finding.sensitivity_extremes_apart": alone,
    "finding.sensitivity_extremes_shared": alone_of("level", "first", "parts", "worst", "most"),
    "finding.sensitivity_not_separated": alone_of("level", "parts", "little", "most"),
    "finding.beats": separates,
    "finding.beats_guessing": guesses,
    "finding.not_separated": separates,
    "finding.unpaired": lambda *_: {"level": HALF, "reason": wording("unpaired.losses")},
    "runtimes.dense": of_runtimes("dense"),
    "runtimes.sparse_kernels": of_runtimes("sparse"),
    "runtimes.no_sparse_kernels": of_runtimes("sparse"),
    "runtimes.random_weights": of_runtimes("misread"),
    "runtimes.uneven": of_runtimes("some"),
    "speed.speed_up": runs,
    "speed.not_stated.noise": no_difference,
    "speed.not_stated.unsettled": never_settled,
    "speed.not_stated.crowded": beside_others,
    "speed.not_stated.few": too_few,
    "speed.not_stated.unknown": without_control,
    "speed.not_stated.ticks": ticking,
    "speed.control_same_variant": of_control,
    "speed.control_other_variant": of_control,
    "audit.scores_of_other_model": other_model,
    "audit.scores_before_pruning": other_model,
    "audit.partial_tasks": part_of_a_task,
    "audit.unpaired_tasks": unpaired,
    "finding.tasks_separated": flips,
    "finding.tasks_not_separated": flips,
    "finding.task_winner": best_answers,
    "audit.calibrated_on_evaluation_text": own_text,
    "audit.some_blocks_only": of_several(some_blocks),
    "audit.very_sparse_layers": of_several(very_sparse),
    "audit.tied_head_pruned": of_several(tied_head),
    "audit.zero.heads": of_several(dead_heads),
    "audit.zero.layers": of_several(dead_layers),
    "audit.zero.rows": of_several(dead_lines("rows")),
    "audit.zero.columns": of_several(dead_lines("columns")),
    "audit.zero_by_variant.heads": dead_of_each("heads"),
    "audit.zero_by_variant.layers": dead_of_each("layers"),
    "audit.zero_by_variant.rows": dead_of_each("rows"),
    "audit.zero_by_variant.columns": dead_of_each("columns"),
    "audit.excluded_from_pruning": left_out,
}


def read_back(study):
    """Compare the text of all findings about a study; return the keys that were met."""
    met, findings = set(), study_findings(study)
    assert findings == sr.summarize(study)
    check_length(verdict(study))
    findings.remove(verdict(study))  # see test_verdict.py
    notes = {say("format.note_sentence", note=note) for note in study.notes}
    for finding in (*findings, *audit(study)):
        for key, values in () if finding in notes else statements_of(finding, READERS):
            assert values == READERS[key](study, values), finding
            met.add(key)
    return met


def pruned_blocks(blocks, *numbers):
    model = Tiny(blocks=blocks)
    for number in numbers:
        for leaf in ("self_attn.q_proj", "fc1", "fc2"):
            layer = model.get_submodule(f"layers.{number}.{leaf}")
            sr.freeze_pruning_(sr.prune_global_magnitude_([layer], 0.6))
    return model


class Mystery(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.strange = nn.Parameter(torch.ones(size))


def mysterious(*sizes):
    named = {f"m{size}": Mystery(size) for size in sizes}
    return sr.load(nn.ModuleDict({"fc1": nn.Linear(20, 30), **named}), name="odd")


class DoubledLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def own_ways(count):
    """A study of a model where layers multiply in a way of their own, twice as CSR."""
    layers = [(DoubledLinear if n < count else nn.Linear)(20 + n, 30) for n in range(6)]
    blocks = nn.ModuleList(nn.ModuleDict({"fc1": layer}) for layer in layers)
    weights = sr.load(nn.ModuleDict({"layers": blocks}), name="own")
    prunings = [sr.global_magnitude(weights, sparsity) for sparsity in (0.3, 0.6)]
    return sr.compare(sr.dense(weights), *map(sr.csr, prunings))


def mixture():
    config = transformers.MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    return sr.load(transformers.MixtralForCausalLM(config), name="mixture")


def dead(blocks=1, *, further=False):
    config = transformers.OPTConfig(
        hidden_size=8, ffn_dim=8, num_attention_heads=2, num_hidden_layers=blocks, vocab_size=16,
        word_embed_proj_dim=8,
    )  # fmt: skip
    model = transformers.OPTForCausalLM(config)
    with torch.no_grad():
        model.model.decoder.layers[0].self_attn.k_proj.weight[4:] = 0
        model.model.decoder.layers[0].fc1.weight[:] = 0
        if further:
            model.model.decoder.layers[0].self_attn.q_proj.weight[:] = 0
        model.model.decoder.embed_tokens.weight[:, :3] = 0
    return model


def dead_more_than_asked(blocks=2):
    """All variants have the same zeros, since the pruned weights were zero before."""
    weights = sr.load(dead(blocks), name="dead")
    pruning = sr.global_magnitude(weights, 0.01)
    return sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning), patterns=True)


def packed():
    with tempfile.TemporaryDirectory() as folder:
        llama, _ = packing.packed_llama(Path(folder), "gptq-4-v1")
        return study_of(sr.load(llama, name="packed"), 0.5, patterns=True)


def bitmask():
    with tempfile.TemporaryDirectory() as folder:
        llama, _ = packing.packed_llama(Path(folder), "sparse-bitmask")
        return sr.compare(sr.dense(sr.load(llama, name="bitmask")))


def rounded_before():
    """Gaussian weights, pruned or not, in a format with a zero and in one without."""
    variants = []
    for way, pruned in itertools.product(("nvfp4-modelopt", "mlx-4"), (0.0, 0.1, 0.17, 0.5)):
        with tempfile.TemporaryDirectory() as folder:
            weights, _ = packing.packed_matrix(Path(folder), way, packing.gaussian(pruned))
            variants.append(sr.dense(weights, name=f"{way} {pruned}"))
            sr.compare(variants[-1])  # counts it while the file is there
    return sr.compare(*variants)


def zeroed_embedding():
    model = Tiny()
    with torch.no_grad():
        model.embed_tokens.weight[:, :3] = 0
    return model


def measured():
    study = study_of(sr.load())
    return measurements.put_in(
        study,
        latency=measurements.latency(),
        quality=measurements.quality(names=("Dense", "Masked30", "CSR30")),
        sensitivity=measurements.sensitivity(12),
        continuations=measurements.continuations().assign(continuation=[" os\n", " os\n", " sys"]),
    )


def evaluated():
    study = study_of(sr.load())
    few_run = measurements.tasks(["CSR30"]).assign(limited=True, evaluated_model="x/pruned")
    scores = [
        measurements.seven("Dense", "org/other", 0.0),
        measurements.seven("Masked30", "org/demo", 0.03125),
        measurements.seven("CSR30", "org/pruned", 0.0625),
        few_run.assign(task=["a", "b"]),
    ]
    return study.with_measured(tasks=pd.concat(scores))


def badly_timed(**cells):
    """Whole forward passes by a clock that was wrong; without cells, in every way at once."""
    study, wrong = study_of(sr.load()), measurements.latency()
    wrong = wrong[wrong["scope"] == "model"]
    ways = [cells] if cells else [
        {"control_low": 1.1, "control_high": 1.3},
        {"realised_low": 0.3, "realised_high": 1.01},
        {"others": 2.3},
        {"runs": 14},
        {"control_low": None, "control_high": None, "control": None},
        *2 * [{"seconds": 16.0}],
    ]  # fmt: skip
    frames = [
        wrong.assign(
            tokens=wrong["tokens"] + number, seconds=wrong["seconds"] * (1 + number)
        ).assign(**way)
        for number, way in enumerate(ways)
    ]
    return measurements.put_in(study, latency=pd.concat(frames, ignore_index=True))


def flattered():
    """Scored on the text that it was calibrated on."""
    weights, ids = sr.load(small_llama(), name="small"), torch.arange(48) * 7 % 61
    variants = [sr.dense(weights), sr.masked(sr.wanda(weights, 0.5, ids, window=16))]
    return sr.compare(*variants).with_measured(quality=sr.perplexity(variants, ids))


def partly_pruned():
    model = Tiny()
    for number in (0, 1):
        layer = model.get_submodule(f"layers.{number}.fc1")
        sr.freeze_pruning_(sr.prune_global_magnitude_([layer], 1.0))
    return model


def opened(policy, *more, patterns=True):
    """The zeros of a demo model that was pruned and then opened."""
    weights = sr.load()
    model = policy(weights).apply_(weights.module())
    for change in more:
        change(model)
    weights = sr.load(model, name="opened")
    zeros = sr.existing_zeros(weights)
    return sr.compare(sr.dense(weights), sr.masked(zeros), sr.csr(zeros), patterns=patterns)


def without_heads(model):
    """Zero two heads of four of each block, in all four projections."""
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            for name in ("q_proj", "k_proj", "v_proj"):
                getattr(layer.self_attn, name).weight[32:96] = 0
            layer.self_attn.out_proj.weight[:, 32:96] = 0


def without_neurons(model):
    """Zero every other neuron of each MLP."""
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            layer.fc1.weight[::2] = 0
            layer.fc2.weight[:, ::2] = 0


def pruned_twice():
    study = opened(lambda weights: sr.global_magnitude(weights, 0.5))
    return sr.compare(sr.dense(study.weights), mostly(0.6, study.weights))


def mostly(sparsity, weights):
    return sr.masked(sr.global_magnitude(weights, sparsity))


def rivals(gap, noise, costs=(), keeps=True):
    """Two prunings with losses whose difference has a mean and a noise, and costs of parts."""
    weights = sr.load(Tiny(), name="rivals")
    policies = {"A": sr.global_magnitude(weights, 0.5), "B": sr.layerwise_magnitude(weights, 0.5)}
    masked = [sr.masked(pruning, name=name) for name, pruning in policies.items()]
    study = sr.compare(sr.dense(weights), *masked)
    draws = np.random.default_rng(0).normal(size=(3, 100))
    sums = [
        24 + 3 * draws[0] + 16 * mean + noise * each
        for mean, each in zip((0.0, 0.3, 0.3 + gap), (0, *draws[1:]), strict=True)
    ]
    scores = measurements.quality([(0.0, 1.0), (0.5, 1.0), (0.5, 1.0)], ("Dense", "A", "B"))
    scores = measurements.with_losses(scores, sums)
    frames = {"quality": scores if keeps else scores.assign(span_nll=None)}
    if costs:
        more = np.random.default_rng(3).normal(size=(len(costs), 100))
        kept = [tuple(16 * cost + each) for cost, each in zip(costs, more, strict=True)]
        parts = measurements.sensitivity(len(costs))
        frames["sensitivity"] = parts.assign(
            scored=1600, span=16, span_increase=pd.Series(kept, dtype=object),
            nll_increase=[sum(each) / 1600 for each in kept],
        )  # fmt: skip
    return measurements.put_in(study, **frames)


def routed():
    weights = experts.mixture(2, 4)
    study = sr.compare(sr.dense(weights), sr.dense(weights, name="Kept"), patterns=True)
    tables = [experts.table(name, 2, 4) for name in ("Kept", "Dense")]
    return study.with_measured(experts=pd.concat(tables, ignore_index=True))


STUDIES = {
    "routed": routed,
    "rivals apart": lambda: rivals(0.2, 0.2, costs=(0.1, 0.5, 0.2)),
    "rival that guesses": lambda: rivals(0.9, 0.2),
    "rivals not apart": lambda: rivals(0.001, 3.0, costs=(0.5, 0.5, 0.2)),
    "unpaired rivals": lambda: rivals(0.2, 0.2, costs=(0.2, 0.2), keeps=False),
    "demo": lambda: study_of(sr.load(), patterns=True, context=128),
    "levels": lambda: sr.compare(
        sr.dense(sr.load()), *(mostly(s, sr.load()) for s in (0.7, 0.1, 0.5)), patterns=True
    ),
    "bfloat16": lambda: study_of(sr.load(Tiny(dtype=torch.bfloat16, tied=False), name="b"), 0.5),
    "measured": measured,
    "evaluated": evaluated,
    "answered": answered,
    "badly timed": badly_timed,
    "timed against itself": lambda: badly_timed(control="Dense"),
    "flattered": flattered,
    "packed": packed,
    "rounded before": rounded_before,
    "never": lambda: study_of(sr.load(nn.ModuleDict({"fc1": nn.Linear(1, 10)}), name="thin"), 0.5),
    "own way": lambda: own_ways(1),
    "own ways": lambda: own_ways(4),
    "nothing as csr": lambda: own_ways(6),
    "mixture": lambda: study_of(mixture(), 0.25),
    "one mystery": lambda: study_of(mysterious(7), 0.5, context=8),
    "mysteries": lambda: sr.compare(sr.dense(mysterious(7, 9))),
    "blocks": lambda: sr.compare(sr.dense(pruned_blocks(8, 0, 2))),
    "asked": lambda: sr.compare(mostly(0.1, sr.load(partly_pruned(), name="t"))),
    "head": lambda: study_of(sr.load(zeroed_embedding(), name="head"), 0.5),
    "models": lambda: sr.compare(
        sr.dense(sr.load()), *(mostly(s, mixture()) for s in (0.1, 0.5)),
        sr.dense(mysterious(7), name="Odd"), context=8,
    ),
    "dead": lambda: sr.compare(sr.dense(dead()), patterns=True),
    "dead, more and less": lambda: sr.compare(
        *(sr.dense(dead(further=name == "B"), name=name) for name in "AB"), patterns=True
    ),
    "opened": lambda: opened(lambda weights: sr.global_magnitude(weights, 0.5)),
    "opened layerwise": lambda: opened(lambda weights: sr.layerwise_magnitude(weights, 0.5)),
    "opened random": lambda: opened(lambda weights: sr.random_unstructured(weights, 0.5)),
    "opened 2:4": lambda: opened(lambda weights: sr.n_m(weights, 2, 4)),
    "opened 2:4, no patterns": lambda: opened(lambda w: sr.n_m(w, 2, 4), patterns=False),
    "opened, no patterns": lambda: opened(lambda w: sr.global_magnitude(w, 0.5), patterns=False),
    "opened heads": lambda: opened(lambda weights: sr.global_magnitude(weights, 0), without_heads),
    "opened rows": lambda: opened(lambda weights: sr.global_magnitude(weights, 0), without_neurons),
    "pruned twice": pruned_twice,
    "as it is": lambda: sr.compare(sr.masked(sr.existing_zeros(sr.load()))),
    "dead before": dead_more_than_asked,
    "bitmask": bitmask,
}  # fmt: skip


@functools.cache
def met(name):
    torch.manual_seed(0)
    return read_back(STUDIES[name]())


@pytest.mark.parametrize("name", STUDIES)
def test_every_number_is_that_of_the_frames(name):
    assert met(name)


def test_every_kind_of_finding_was_read():
    assert set(READERS) == set().union(*map(met, STUDIES))


def test_every_finding_of_the_code_has_a_reader():
    named = {
        node.value
        for path in FINDINGS.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    sentences = {
        key
        for key in named & set(catalogue())
        if key.startswith(("finding.", "existing.", "audit.", "speed.", "rounding.", "runtimes."))
        and catalogue()[key].endswith(".")
    }
    assert len(sentences) > 20
    assert sentences - set(READERS) == set()
