"""Every number of the explorer, read back and compared with the frames, cell by cell.

Texts are written here by a formatter of the test's own, from integers of the frames; a wrong
column, denominator or sign between a study and its reader fails one of these tests.
"""

import re

import pandas as pd
import pytest
import torch
from explored import html_tables, html_texts
from helpers import Tiny

import sparsity_report as sr
from sparsity_report.explorer.map_metrics import COUNTED as SHOWN

pytestmark = pytest.mark.slow

THIN = "\u202f"
GROUPS = {
    "attention_linear": "attention",
    "mlp_linear": "MLP",
    "lm_head": "output head",
    "other_linear": "other linear",
}
ITEM = 4


def share(part, full):
    """Zeros in percent, with one digit."""
    if part is None or not full:
        return "–"
    hundredths = 100 * part / full
    if 0 < hundredths < 0.05:
        return f"<{THIN}0.1{THIN}%"
    return f"{hundredths:.1f}{THIN}%"


def short(number, unit=""):
    """A quantity with three digits and a prefix."""
    power = next(power for power in range(4) if number < 999.5 * 1000**power)
    prefix = " kMG"[power].strip()
    digits = f"{number}" if power == 0 else f"{number / 1000**power:#.3g}".rstrip(".")
    return f"{digits}{THIN}{prefix}{unit}" if prefix or unit else digits


def full(number):
    return f"{number:,}".replace(",", THIN)


def times(part, member):
    return f"{part / member:.2f}{THIN}×" if member else "–"


def three_policies():
    torch.manual_seed(3)
    weights = sr.load(Tiny(width=8, hidden=16))
    built = [sr.dense(weights)]
    for name, pruning in (
        ("G", sr.global_magnitude(weights, 0.6)),
        ("L", sr.layerwise_magnitude(weights, 0.5)),
        ("N", sr.n_m(weights, 2, 4)),
    ):
        built += [sr.masked(pruning, name=f"M{name}"), sr.csr(pruning, name=f"C{name}")]
    return sr.compare(*built)


@pytest.fixture(scope="module", params=["demo", "three policies"])
def explorer(request):
    study = request.getfixturevalue("demo_study") if request.param == "demo" else three_policies()
    shown = sr.explore(study)
    shown._shell.width = 900
    return shown


def rows_of(explorer, variant):
    """Plain rows of a variant, or of a level with what a variant there would take and do."""
    study = explorer.study
    if variant not in ("Masked at level", "CSR at level"):
        frame = study.layers[study.layers["variant"] == variant]
        return [{**row, "dense": ITEM * row["total"]} for row in frame.to_dict("records")]
    rows = []
    for row in study.at_level(explorer.sparsity).to_dict("records"):
        csr = variant == "CSR at level"
        bytes_ = row["csr_bytes"] if csr else row["dense_bytes"]
        skips = csr and row["prunable"]
        flops = row["useful_flops_per_token"] if skips else row["flops_per_token"]
        dense = ITEM * row["total"]
        rows.append({**row, "stored_bytes": bytes_, "flops_per_token": flops, "dense": dense})
    return rows


def summed(rows, column):
    return int(sum(row[column] for row in rows))


def value_of(rows, metric, part=""):
    """A metric of some layers; zeros among the weights (`part`) or all parameters."""
    if metric == "sparsity":
        total = summed(rows, f"{part}total")
        return (total - summed(rows, f"{part}nonzero")) / total if total else None
    if metric == "bytes_ratio":
        dense = summed(rows, "dense")
        return summed(rows, "stored_bytes") / dense if dense else None
    return summed(rows, metric)


def label_of(value, metric):
    if value is None:
        return "–"
    if metric == "sparsity":
        return share(value, 1).replace(THIN, " ")
    if metric == "bytes_ratio":
        return times(value, 1).replace(THIN, " ")
    return short(value).replace(THIN, "")


def table(html, at=0):
    """A table as a list of mappings from heading to text."""
    matches = html_tables(html)[at]
    # A head that neighbors share leaves blanks beside it.
    first = 0 if all(matches[0]) else 1
    heads, body = matches[first], matches[first + 1 :]
    assert all(len(row) == len(heads) for row in body)
    return [dict(zip(heads, row, strict=True)) for row in body]


def shown_variants(explorer):
    return [*explorer.study.variants["variant"], "Masked at level", "CSR at level"]


def data(explorer, name):
    return explorer.chart["datasets"][name]


@pytest.fixture(autouse=True)
def restored(explorer):
    """Put the explorer back as it was shown first."""
    explorer.selection, explorer.modules, explorer.grouping = (), "prunable", "group"
    explorer.metric, explorer.sparsity, explorer.sort = "sparsity", 0.37, "model order"


def test_totals(explorer):
    read = table(explorer._head.value)
    assert [row["Variant"] for row in read] == list(explorer.study.variants["variant"])
    for row in read:
        rows = rows_of(explorer, row["Variant"])
        prunable = [one for one in rows if one["prunable"]]
        zeros, total = (
            summed(prunable, "weight_total") - summed(prunable, "weight_nonzero"),
            summed(prunable, "weight_total"),
        )
        assert row["prunable"] == share(zeros, total)
        of_all = summed(rows, "total")
        assert row["model"] == share(of_all - summed(rows, "nonzero"), of_all)
        assert row["Stored bytes"] == short(summed(rows, "stored_bytes"), "B")
        assert row["FLOPs per token"] == short(summed(rows, "flops_per_token"))


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.62, 0.99])
def test_cards_and_the_point_of_the_curve(explorer, sparsity):
    explorer.sparsity = sparsity
    texts = html_texts(explorer._controls.cards.value)
    read = {texts[at]: (texts[at + 1], texts[at + 2]) for at in range(0, 12, 3)}
    sparse, dense = rows_of(explorer, "CSR at level"), rows_of(explorer, "Masked at level")
    prunable = [row for row in sparse if row["prunable"]]
    weights = summed(prunable, "weight_total")
    zeros = weights - summed(prunable, "weight_nonzero")
    assert read["Sparsity of the prunable weights"] == (
        share(zeros, weights), f"{short(zeros)} of {short(weights)}",
    )  # fmt: skip
    total = summed(sparse, "total")
    zeros_of_all = total - summed(sparse, "nonzero")
    assert read["Sparsity of the whole model"] == (
        share(zeros_of_all, total), f"{short(zeros_of_all)} of {short(total)}",
    )  # fmt: skip
    small, large = summed(sparse, "stored_bytes"), summed(dense, "stored_bytes")
    number, note = read["Stored bytes as CSR"]
    assert number == times(small, large)
    assert note.startswith(f"{short(small, 'B')} against {short(large, 'B')}; break-even at ")
    fewer, flops = summed(sparse, "flops_per_token"), summed(dense, "flops_per_token")
    assert read["FLOPs as CSR"] == (
        times(fewer, flops), f"{short(fewer)} against {short(flops)}; theoretical",
    )  # fmt: skip
    (point,) = data(explorer, "level")
    assert (point["sparsity"], point["value"]) == pytest.approx((zeros / weights, small / large))
    assert point["label"] == f"{share(zeros, weights)}: {times(small, large)}".replace(THIN, " ")
    lines = {line["line"] for line in data(explorer, "curve")}
    assert lines == {"bytes in CSR", "FLOPs in CSR", "dense"}
    for line, value in (("bytes in CSR", small / large), ("FLOPs in CSR", fewer / flops)):
        near = [
            row["value"]
            for row in data(explorer, "curve")
            if row["line"] == line and row["sparsity"] == pytest.approx(zeros / weights)
        ]
        assert near == [pytest.approx(value)], line


def test_where_csr_pays(explorer):
    explorer.variant = "CSR at level"
    prunable = [row for row in rows_of(explorer, "Dense") if row["prunable"]]
    n = summed(prunable, "weight_total")
    pointers = sum(row["shape"][0] + 1 for row in prunable)
    # Dense takes 4 bytes a weight, CSR 8 a nonzero and 4 a row pointer.
    even = 1 - (4 * n - 4 * pointers) / (8 * n)
    (mark,) = data(explorer, "even")
    assert mark["sparsity"] == pytest.approx(even)
    assert mark["value"] == 1
    text = f"break-even at {100 * even:.1f}"
    assert mark["label"].startswith(text)
    assert text in explorer._controls.cards.value
    at, wording, _ = explorer._controls.level.ticks[-1]
    assert f"CSR breaks even at {100 * even:.1f}" in wording
    assert at == pytest.approx(even)


@pytest.mark.parametrize("metric", SHOWN)
def test_cells(explorer, metric):
    explorer.metric = metric
    # Both levels and a third of the variants, others for each metric.
    *variants, masked, csr = shown_variants(explorer)
    for variant in (*variants[SHOWN.index(metric) % 3 :: 3], masked, csr):
        explorer.variant = variant
        cells = {cell["tip"]: cell for cell in data(explorer, "cells")}
        prunable = [row for row in rows_of(explorer, variant) if row["prunable"]]
        assert set(cells) == {row["module_name"] for row in prunable}
        for row in prunable:
            cell, value = cells[row["module_name"]], value_of([row], metric, "weight_")
            assert cell["value"] == pytest.approx(value), (variant, row["module_name"])
            assert cell["label"] == label_of(value, metric)
            assert cell["block"] == str(row["block"])
            assert cell["projection"] == row["module_name"].rpartition(".")[2]


@pytest.mark.parametrize("metric", SHOWN)
def test_bars(explorer, metric):
    # Every metric by another grouping in each of the two explorers, every grouping in both.
    at = SHOWN.index(metric) + (len(explorer.study.variants) > 3)
    grouping = ("group", "projection", "block")[at % 3]
    explorer.metric, explorer.grouping, explorer.modules = metric, grouping, "prunable"

    def key(row):
        return {
            "group": GROUPS.get(row["group"], row["group"]),
            "projection": row["module_name"].rpartition(".")[2],
            "block": str(row["block"]),
        }[grouping]

    for live in (False, True):
        explorer.variant = "CSR at level" if live else "Dense"
        variants = (
            ["Dense", "Masked at level", "CSR at level"] if live else shown_variants(explorer)[:-2]
        )
        bars = {(bar["group"], bar["variant"]): bar for bar in data(explorer, "bars")}
        expected = 0
        for variant in variants:
            rows = [row for row in rows_of(explorer, variant) if row["prunable"]]
            for name in dict.fromkeys(map(key, rows)):
                value = value_of([row for row in rows if key(row) == name], metric)
                bar = bars[name, variant]
                assert bar["value"] == pytest.approx(value), (name, variant)
                assert bar["label"] == label_of(value, metric)
                expected += 1
        assert len(bars) == expected


def test_group_bars_are_the_groups_of_the_study(explorer):
    explorer.modules, explorer.variant = "all", "Dense"
    bars = {(bar["group"], bar["variant"]): bar["value"] for bar in data(explorer, "bars")}
    groups = explorer.study.groups
    assert len(bars) == len(groups)
    for row in groups.to_dict("records"):
        name = GROUPS.get(row["group"], row["group"])
        want = None if pd.isna(row["sparsity"]) else pytest.approx(row["sparsity"])
        assert bars[name, row["variant"]] == want


def test_rows_of_layers(explorer):
    for variant in shown_variants(explorer):
        explorer.variant = variant
        read = {row["Module"]: row for row in table(explorer._table.value)}
        rows = [row for row in rows_of(explorer, variant) if row["prunable"]]
        assert list(read) == [row["module_name"] for row in rows]
        for row in rows:
            weights, left = row["weight_total"], row["weight_nonzero"]
            assert read[row["module_name"]] == {
                "Module": row["module_name"],
                "Group": GROUPS[row["group"]],
                "Shape": f"{row['shape'][0]}{THIN}×{THIN}{row['shape'][1]}",
                "Zeros": share(weights - left, weights),
                "Nonzero": short(left),
                "FLOPs": short(row["flops_per_token"]),
                "Bytes": short(row["stored_bytes"], "B"),
                "÷ dense": times(row["stored_bytes"], row["dense"]),
            }, variant
        weights, left = summed(rows, "weight_total"), summed(rows, "weight_nonzero")
        about = html_texts(explorer._table.value)[1]
        assert about.startswith(f"{len(rows)} in view · ")
        assert about.endswith(
            f" · {short(weights)} weights · {share(weights - left, weights)} zeros"
        )


def test_one_layer_closely(explorer):
    (name,) = [
        row["module_name"] for row in rows_of(explorer, "Dense") if "1.fc2" in row["module_name"]
    ]
    explorer.detail = name
    for variant in shown_variants(explorer):
        explorer.variant = variant
        (row,) = [one for one in rows_of(explorer, variant) if one["module_name"] == name]
        weights, left = row["weight_total"], int(row["weight_nonzero"])
        tables = html_tables(explorer._detail.value)
        figures = {cells[0]: cells[1:] for cells in tables[0]}
        assert figures["Zeros"] == [
            share(weights - left, weights), f"{full(weights - left)} of {full(weights)} weights",
        ]  # fmt: skip
        assert figures["FLOPs per token"] == [
            short(row["flops_per_token"]),
            f"{short(row['useful_flops_per_token'])} on nonzero weights",
        ]  # fmt: skip
        threshold = explorer.study.variants.set_index("variant")["threshold"].get(variant)
        if pd.notna(threshold):
            assert float(figures["Threshold"][0]) == pytest.approx(threshold, rel=1e-3)
            (mark,) = data(explorer, "threshold")
            assert mark["at"] == threshold
        for one in table(explorer._detail.value, 1):
            (custom,) = [r for r in rows_of(explorer, one["Variant"]) if r["module_name"] == name]
            assert one == {
                "Variant": one["Variant"],
                "Zeros": share(weights - custom["weight_nonzero"], weights),
                "Nonzero": full(int(custom["weight_nonzero"])),
                "FLOPs": short(custom["flops_per_token"]),
                "Bytes": short(custom["stored_bytes"], "B"),
            }
        rows = row["shape"][0]
        sizes = {
            "dense": weights * ITEM,
            "CSR with int32 indices": left * (ITEM + 4) + (rows + 1) * 4,
            "CSR with int64 indices": left * (ITEM + 8) + (rows + 1) * 8,
            "bitmask": left * ITEM + -(-weights // 8),
        }
        read = table(explorer._detail.value, 2)
        assert {one["Stored as"]: (one["Bytes"], one["÷ dense"]) for one in read} == {
            layout: (full(size), times(size, weights * ITEM)) for layout, size in sizes.items()
        }, variant


def test_every_weight_stands_in_the_histogram(explorer):
    explorer.variant = next(v for v in explorer.study.variants["variant"] if v[0] == "M")
    explorer.detail = explorer.layers()["module_name"].iloc[0]
    (row,) = [r for r in rows_of(explorer, explorer.variant) if r["module_name"] == explorer.detail]
    bars = data(explorer, "magnitudes")
    held = [int(re.match(r"[\d\u202f]+", bar["label"])[0].replace(THIN, "")) for bar in bars]
    # The outermost thousandth is left out.
    assert 0.98 * row["weight_total"] <= sum(held) <= row["weight_total"]
    zeros = row["weight_total"] - row["weight_nonzero"]
    pruned = sum(n for n, bar in zip(held, bars, strict=True) if bar["pruned"])
    assert pruned == pytest.approx(zeros, abs=max(2, 0.02 * row["weight_total"]))
