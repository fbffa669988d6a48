"""Every number of page, PDF, thesis kit and CSV, read back cell by cell with its heads.

Numbers are read back from what was written and compared with the study's frames, written by a
formatter of this test's own. A swapped column, denominator, sign or digit fails.
"""

import base64
import csv
import gzip
import json
import math
import re
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pandas as pd
import pytest
from helpers import study_of
from papers import bare, latex_table, tables_of, words_of

import sparsity_report as sr
from sparsity_report.report.sections import Medium
from sparsity_report.report.study_sections import study_document
from sparsity_report.words.languages import spoken

pytestmark = pytest.mark.slow

THIN = "\u202f"
GROUPS = {
    group: f"group.{group}"
    for group in ("embedding", "attention_linear", "mlp_linear", "lm_head", "norm", "other_linear")
}
LAYOUTS = {
    "dense": "layout.dense", "csr_int16": "layout.csr_int16", "csr_int32": "layout.csr_int32",
    "csr_int64": "layout.csr_int64", "coo_int32": "layout.coo_int32",
    "coo_int64": "layout.coo_int64", "bitmask": "layout.bitmask", "2:4": "2:4",
    "tca_bme": "layout.tca_bme", "macko": "layout.macko",
    "marlin_2:4": "layout.marlin_2:4", "zstd": "layout.zstd",
    **{f"bsr_{side}": f"BSR {side} × {side}" for side in (4, 8, 16, 32)},
}  # fmt: skip
LOSSLESS = {True: "format.yes", False: "format.no", None: "explorer.value_unknown"}
COMMANDS = {
    "Dense": "Dense", "Masked30": "MaskedThirty", "CSR30": "CSRThirty", "MaskedG50": "MaskedGFifty",
    "CSRG50": "CSRGFifty", "MaskedL50": "MaskedLFifty", "MaskedN24": "MaskedNTwentyFour",
}  # fmt: skip


def unknown(value):
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def rounded(value, digits):
    """A number with so many digits, half to even, by decimal arithmetic."""
    exact = Decimal(value) if not isinstance(value, Fraction) else (
        Decimal(value.numerator) / Decimal(value.denominator)
    )  # fmt: skip
    return str(exact.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_EVEN))


class Writer:
    """How this test writes numbers, in one language."""

    def __init__(self, code):
        self.decimal = "," if code == "fr" else "."
        with sr.speaking(code):
            self.text = spoken().template

    def say(self, key):
        return self.text(key) if "." in key else key

    def count(self, value):
        if unknown(value):
            return "–"
        digits, groups = str(int(value)), []
        while digits:
            digits, last = digits[:-3], digits[-3:]
            groups.insert(0, last)
        return THIN.join(groups)

    def percent(self, value, digits=1):
        if unknown(value):
            return "–"
        least = Fraction(1, 10**digits)
        shown, sign = 100 * Fraction(value), ""
        if 0 < shown < least / 2:
            shown, sign = least, f"<{THIN}"
        elif 100 - least / 2 < shown < 100:
            shown, sign = 100 - least, f">{THIN}"
        return f"{sign}{self.marked(rounded(shown, digits))}{THIN}%"

    def percent2(self, value):
        return self.percent(value, 2)

    def percent0(self, value):
        return self.percent(value, 0)

    def points(self, value):
        shown = self.marked(rounded(100 * Fraction(value), 1))
        return shown.replace("-", "−") if value < 0 else f"+{shown}"

    def times(self, value):
        return "–" if unknown(value) else f"{self.marked(rounded(Fraction(value), 2))}{THIN}×"

    def six(self, value):
        if unknown(value):
            return "–"
        places = 5 - math.floor(math.log10(value))
        return self.marked(str(Decimal(rounded(value, places)).normalize()))

    def scaled(self, value, unit):
        step = 0
        while value >= 1000 ** (step + 1):
            step += 1
        amount = Fraction(int(value), 1000**step)
        digits = 0 if not step or amount >= 100 else 1 if amount >= 10 else 2
        units = {"B": "o", "FLOPs": "FLOP"} if self.decimal == "," else {}
        name = "".join([" kMG"[step].strip(), units.get(unit, unit)])
        return f"{self.marked(rounded(amount, digits))}{THIN}{name}".removesuffix(THIN)

    def marked(self, text):
        return text.replace(".", self.decimal)


def share(total, nonzero):
    return None if unknown(nonzero) or not total else Fraction(int(total - nonzero), int(total))


def ratio(part, whole):
    return None if unknown(part) or not whole else Fraction(int(part), int(whole))


def three_policies(weights):
    prunings = {
        "G50": sr.global_magnitude(weights, 0.5),
        "L50": sr.layerwise_magnitude(weights, 0.5),
        "N24": sr.n_m(weights, 2, 4),
    }
    masked = [sr.masked(pruning, name=f"Masked{name}") for name, pruning in prunings.items()]
    return sr.compare(
        sr.dense(weights), *masked, sr.csr(prunings["G50"], name="CSRG50"), patterns=True
    )


@pytest.fixture(scope="module")
def studies(demo):
    return {"one": study_of(demo, zstd=True), "three": three_policies(demo)}


@pytest.fixture(scope="module", params=["one-fr", "three-en"])
def written(request, studies, tmp_path_factory):
    """A study, this test's writer, and the folder with all that the package wrote of it."""
    name, language = request.param.split("-")
    folder = tmp_path_factory.mktemp(request.param)
    study = studies[name]
    sr.write_report(study, folder / "page.html", language=language)
    sr.write_report(study, folder / "report.pdf", language=language)
    sr.write_thesis(study, folder / "thesis", language=language)
    return study, Writer(language), folder


def prunings(study):
    return [v for v in study.variants["variant"] if v.startswith("Masked")]


def rows(frame):
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def totals_grid(study, w):
    """Heads and rows of the totals, from sums over the rows of the modules."""
    layers = {v: rows(own) for v, own in study.layers.groupby("variant", sort=False)}

    def summed(column, keep=lambda _: True):
        found = []
        for own in layers.values():
            numbers = [row[column] for row in own if keep(row)]
            found.append(None if None in numbers else sum(numbers))
        return found

    def body(row):
        return row["group"] not in {"embedding", "lm_head"}

    parts = [
        ("sparsity.prunable", "weight_", lambda row: row["prunable"]),
        ("sparsity.non_embedding", "", body),
        ("sparsity.model", "", lambda _: True),
    ]
    grid = [["", *layers]]
    for label, prefix, keep in parts:
        total, nonzero = summed(f"{prefix}total", keep), summed(f"{prefix}nonzero", keep)
        shares = [share(*pair) for pair in zip(total, nonzero, strict=True)]
        grid.append([w.say(label), *map(w.percent2, shares)])
        grid.append([w.say("label.of_total"), *map(w.count, total)])
        grid.append([w.say("column.nonzero"), *map(w.count, nonzero)])
    variants = rows(study.variants)
    matrices = (summed(f"weight_{part}", parts[0][2]) for part in ("total", "nonzero"))
    for row, weights, left in zip(variants, *matrices, strict=True):
        row["new"] = None if row["zeros_before"] is None else weights - left - row["zeros_before"]
    for label, column, write in (
        ("column.asked_sparsity", "asked_sparsity", w.percent),
        ("column.zeros_before", "zeros_before", w.count),
        ("column.newly_zeroed", "new", w.count),
        ("column.threshold_magnitude", "threshold", w.six),
    ):
        grid.append([capital(w.say(label)), *(write(row[column]) for row in variants)])
    for label, column in (
        ("column.stored_bytes", "stored_bytes"),
        ("column.flops_per_token", "flops_per_token"),
        ("column.useful_flops_per_token", "useful_flops_per_token"),
    ):
        grid.append([capital(w.say(label)), *map(w.count, summed(column))])
    return grid


def capital(text):
    return text[:1].upper() + text[1:]


def groups_rows(study, w, variant):
    """Rows of one variant's groups, summed from its modules."""
    own = rows(study.layers[study.layers["variant"] == variant])
    whole = sum(row["total"] for row in own)
    grid = []
    for group in GROUPS:
        if not (inside := [row for row in own if row["group"] == group]):
            continue
        total, nonzero, flops, useful, size = (
            sum(row[column] for row in inside)
            for column in (
                "total", "nonzero", "flops_per_token", "useful_flops_per_token", "stored_bytes",
            )
        )  # fmt: skip
        grid.append(
            [
                w.say(GROUPS[group]), w.count(len(inside)), w.count(total), w.count(nonzero),
                w.percent(share(total, nonzero)), w.count(flops), w.count(useful), w.count(size),
                w.percent(Fraction(int(total), int(whole))),
            ]
        )  # fmt: skip
    return grid


def groups_heads(w):
    return [
        capital(w.say(head))
        for head in (
            "column.group", "column.modules", "column.total", "column.nonzero",
            "column.zero_share_of_parameters", "column.flops_per_token",
            "column.useful_flops_per_token", "column.stored_bytes", "column.param_frac",
        )
    ]  # fmt: skip


def layers_grid(study, w, variant):
    heads = (
        "column.module_name", "column.group", "column.shape", "column.stored_as", "column.total",
        "column.nonzero", "column.zero_share_of_parameters", "column.flops_per_token",
        "column.useful_flops_per_token", "column.stored_bytes",
    )  # fmt: skip
    grid = [[capital(w.say(head)) for head in heads]]
    for row in rows(study.layers[study.layers["variant"] == variant]):
        grid.append(
            [
                row["module_name"], w.say(GROUPS[row["group"]]),
                f"{THIN}×{THIN}".join(map(str, row["shape"])), f"{row['layout']} {row['dtype']}",
                w.count(row["total"]), w.count(row["nonzero"]),
                w.percent(share(row["total"], row["nonzero"])), w.count(row["flops_per_token"]),
                w.count(row["useful_flops_per_token"]), w.count(row["stored_bytes"]),
            ]
        )  # fmt: skip
    return grid


def saves_a_tenth(row, dense):
    return row["lossless"] is True and 10 * int(row["bytes"]) <= 9 * int(dense["bytes"])


def storage_grid(study, w, variant, few=False):
    frame = study.storage[study.storage["variant"] == variant]
    by_scope = {
        scope: {row["layout"]: row for row in rows(frame[frame["scope"] == scope])}
        for scope in ("prunable", "model")
    }
    weights, model = by_scope.values()
    over = [w.say("card.prunable_weights")] * 2 + [w.say("name.whole_model")] * 2
    heads = [
        f"{o} {w.say(h)}"
        for o, h in zip(over, ["explorer.column_bytes", "column.ratio_to_dense"] * 2, strict=True)
    ]
    grid = [
        [
            capital(w.say("column.layout")), *heads, capital(w.say("column.break_even")),
            capital(w.say("column.lossless")),
        ]
    ]  # fmt: skip
    for layout, row in weights.items():
        if layout == "zstd" and unknown(row["bytes"]):  # nobody asked for it
            continue
        if few and not (layout in {"dense", "csr_int32"} or saves_a_tenth(row, weights["dense"])):
            continue
        sizes = (row["bytes"], model[layout]["bytes"])
        grid.append(
            [
                w.say(LAYOUTS[layout]),
                w.count(sizes[0]), w.times(ratio(sizes[0], weights["dense"]["bytes"])),
                w.count(sizes[1]), w.times(ratio(sizes[1], model["dense"]["bytes"])),
                w.percent(row["break_even"]),
                w.say(LOSSLESS[row["lossless"]]),
            ]
        )  # fmt: skip
    return grid


def extremes_grids(study, w, variant):
    own = rows(study.layers[(study.layers["variant"] == variant) & study.layers["prunable"]])
    heads = [
        capital(w.say(head))
        for head in ("column.module_name", "column.weight_total", "column.zero_share_of_weights")
    ]
    ranked = sorted(own, key=lambda row: -share(row["weight_total"], row["weight_nonzero"]))
    first, last = (
        w.percent(share(row["weight_total"], row["weight_nonzero"]))
        for row in (ranked[0], ranked[-1])
    )
    if first == last:  # no layer is more sparse than another
        return []
    return [
        [
            heads,
            *(
                [
                    row["module_name"],
                    w.count(row["weight_total"]),
                    w.percent(share(row["weight_total"], row["weight_nonzero"])),
                ]
                for row in end
            ),
        ]
        for end in (ranked[:10], ranked[::-1][:10])
    ]


def levels_grid(study, w):
    """Every tenth level, from the rows of the modules at that level."""
    first = study.layers[study.layers["variant"] == study.variants["variant"].iloc[0]]
    prunable = int(first.loc[first["prunable"], "weight_total"].sum())
    dense = {c: int(first[c].sum()) for c in ("flops_per_token", "stored_bytes", "total")}
    zeros, flops, size = (
        w.say(over) for over in ("metric.zeros", "column.flops_per_token", "metric.stored_bytes")
    )  # fmt: skip
    flops, size = capital(w.say("column.flops_per_token")), capital(w.say("column.stored_bytes"))
    grid = [
        [
            w.say("column.global_sparsity_head"), f"{zeros} {w.say('column.prunable_weights')}",
            f"{zeros} {w.say('column.of_prunable_weights')}",
            f"{zeros} {w.say('column.of_whole_model')}",
            f"{flops} {w.say('column.in_csr')}", f"{flops} {w.say('column.ratio_to_dense')}",
            f"{size} {w.say('column.in_csr')}", f"{size} {w.say('column.ratio_to_dense')}",
        ]
    ]  # fmt: skip
    for level in range(0, 100, 10):
        frame = study.at_level(level / 100)
        removed = int(frame["weight_total"].sum() - frame["weight_nonzero"].sum())
        inside = set(first.loc[first["prunable"], "module_name"])
        pruned_zeros = int(
            sum(
                row.weight_total - row.weight_nonzero
                for row in frame.itertuples()
                if row.module_name in inside
            )
        )
        assert removed >= pruned_zeros
        whole = int((frame["total"] - frame["nonzero"]).sum())
        work, stored = int(frame["useful_flops_per_token"].sum()), int(frame["csr_bytes"].sum())
        grid.append(
            [
                w.percent0(Fraction(level, 100)), w.count(pruned_zeros),
                w.percent(Fraction(pruned_zeros, prunable)),
                w.percent(Fraction(whole, dense["total"])), w.count(work),
                w.times(ratio(work, dense["flops_per_token"])), w.count(stored),
                w.times(ratio(stored, dense["stored_bytes"])),
            ]
        )  # fmt: skip
    return grid


def curve_grid(study, w):
    own = study.storage[
        (study.storage["variant"] == "Dense") & (study.storage["scope"] == "prunable")
    ].set_index("layout")["bytes"]
    first = study.layers[(study.layers["variant"] == "Dense") & study.layers["prunable"]]
    n, pointers = int(first["weight_total"].sum()), int(first["row_pointers"].sum())
    grid = [
        [capital(w.say("column.sparsity"))]
        + [w.say(LAYOUTS[k]) for k in ("dense", "csr_int32", "csr_int64", "bitmask")]
    ]
    for tenth in range(11):
        left = n - round(n * tenth / 10)
        sizes = (4 * n, 8 * left + 4 * pointers, 12 * left + 8 * pointers, 4 * left + n // 8)
        grid.append([w.percent0(Fraction(tenth, 10)), *map(w.count, sizes)])
    assert grid[1][1:] == [w.count(own[k]) for k in ("dense", "csr_int32", "csr_int64", "bitmask")]
    return grid


def map_grid(study, w, variant):
    own = rows(study.layers[(study.layers["variant"] == variant) & study.layers["prunable"]])
    names = list(dict.fromkeys(row["module_name"].rsplit(".")[-1] for row in own))
    known = {
        (row["block"], row["module_name"].rsplit(".")[-1]): w.percent(
            share(row["weight_total"], row["weight_nonzero"])
        )
        for row in own
    }
    blocks = sorted({row["block"] for row in own})
    heads = [capital(w.say("column.block")), *names]
    return [heads, *([str(block), *(known[block, name] for name in names)] for block in blocks)]


def is_uneven(grid):
    """Whether a map shows more than one number."""
    return len({cell for line in grid[1:] for cell in line[1:]}) > 1


def comparison_grid(study, w, column, write):
    table = {}
    for row in rows(study.groups):
        table.setdefault(row["group"], {})[row["variant"]] = row
    heads = [capital(w.say("column.group")), *study.variants["variant"]]
    grid = [heads]
    for group, by_variant in table.items():
        cells = []
        for variant in heads[1:]:
            row = by_variant[variant]
            value = share(row["total"], row["nonzero"]) if column == "sparsity" else row[column]
            cells.append(write(value))
        grid.append([w.say(GROUPS[group]), *cells])
    return grid


def layer_shares(study, variant):
    """Share of zeros of every prunable layer of a variant, by name and in the order of layers."""
    own = rows(study.layers[(study.layers["variant"] == variant) & study.layers["prunable"]])
    return {row["module_name"]: share(row["weight_total"], row["weight_nonzero"]) for row in own}


def results_grid(study, w):
    """Dense and every pruning, from the rows of modules and matrices."""
    several = len(prunings(study)) > 1
    frames = {v: rows(own) for v, own in study.layers.groupby("variant", sort=False)}
    patterns = rows(study.patterns)

    def row(name, label):
        prunable = [of for of in frames[name] if of["prunable"]]
        total, nonzero = (sum(of[f"weight_{k}"] for of in prunable) for k in ("total", "nonzero"))
        stored = Fraction(int(sum(of["stored_bytes"] for of in frames[name])), 10**6)
        of_variant = [of for of in patterns if of["variant"] == name]
        dead = sum(round(of["zero_rows"] * of["rows"]) for of in of_variant)
        zeros = w.percent(share(total, nonzero))
        return [label, zeros, w.marked(rounded(stored, 2)), w.count(dead)]

    def method(policy, layout=""):
        name = capital(w.say(f"method.{policy}"))
        layout = layout and w.say(f"layout.{layout}")
        template = w.say("results.method_layout")
        return template.format(method=name, layout=layout) if layout else name

    unit = "MB" if w.decimal == "." else "Mo"
    heads = [w.say("column.method_head"), w.say("metric.zeros")]
    heads += [w.say("results.size").format(unit=unit), w.say("results.dead_rows")]
    masked, csr = prunings(study)[0], study.variants["variant"].iloc[-1]
    grid = [heads, row("Dense", w.say("name.dense_baseline"))]
    grid += [[w.percent0(Fraction(1, 2))]] if several else []
    grid.append(row(masked, method("global_magnitude", "masked")))
    grid.append(row(csr, method("global_magnitude", "csr")))
    if several:
        grid.append(row("MaskedL50", method("layerwise_magnitude")))
        grid += [["2:4"], row("MaskedN24", method("magnitude"))]
    has_dead = any(own[3:] not in ([], ["0"]) for own in grid[1:])
    return grid if has_dead else [own[:3] for own in grid]


def blocks_grid(study, w):
    first = study.layers[study.layers["prunable"]]
    grid = [[capital(w.say("column.block")), *prunings(study)]]
    for block, own in first.groupby("block"):
        sums = own.groupby("variant")[["weight_total", "weight_nonzero"]].sum()
        grid.append([str(block), *(w.percent(share(*sums.loc[v])) for v in prunings(study))])
    return grid


def heads_grid(study, w, variant, projection):
    own = rows(study.patterns[study.patterns["variant"] == variant])
    of = [row for row in own if row["module_name"].endswith(f".{projection}")]
    numbers = map(str, range(len(of[0]["head_sparsity"])))
    return [
        [capital(w.say("column.block")), *numbers],
        *([str(row["block"]), *map(w.percent, row["head_sparsity"])] for row in of),
    ]


def expected_tables(study, w):
    """Pairs of what the caption has to say and a table of the page."""
    pruned, several = prunings(study), len(prunings(study)) > 1
    yield "", totals_grid(study, w)
    by_variant = [([v], groups_rows(study, w, v)) for v in study.variants["variant"]]
    yield "", [groups_heads(w), *(row for title, own in by_variant for row in (title, *own))]
    for variant in study.variants["variant"]:
        yield variant, layers_grid(study, w, variant)
    captions = ("caption.most_sparse_layers", "caption.least_sparse_layers")
    for variant in pruned:
        yield variant, storage_grid(study, w, variant)
        for caption, grid in zip(captions, extremes_grids(study, w, variant), strict=False):
            yield w.say(caption).replace("{variant:variant}", variant), grid
        if is_uneven(map_grid(study, w, variant)):
            yield variant, map_grid(study, w, variant)
    yield pruned[0], storage_grid(study, w, pruned[0], few=True)
    for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
        yield f" {projection}", heads_grid(study, w, pruned[0], projection)
    yield "", levels_grid(study, w)
    yield "", curve_grid(study, w)
    for column, write in (
        ("sparsity", w.percent), ("param_frac", w.percent), ("flops_per_token", w.count),
    ):  # fmt: skip
        yield "", comparison_grid(study, w, column, write)
    if several:
        # The map of the first stands large; the others are alike throughout, which is said.
        assert sum(is_uneven(map_grid(study, w, variant)) for variant in pruned) == 1
        yield "", blocks_grid(study, w)
    yield w.say("caption.results"), results_grid(study, w)


def test_every_table_of_the_page(written):
    study, w, folder = written
    left = tables_of(folder / "page.html")
    for said, grid in expected_tables(study, w):
        found = [pair for pair in left if pair[1] == grid and said in pair[0]]
        assert found, (said, grid[0], [shown for _, shown in left if shown[0] == grid[0]][:1])
        left.remove(found[0])
    # What is left: models, variants, what others published, and where a threshold expects
    # anything what stands out.
    expecting = study.patterns.dropna(subset=["expected_sparsity"])["variant"].unique()
    assert len(left) == 3 + len(set(expecting) & set(prunings(study)))


def test_cards(written):
    study, w, folder = written
    text = (folder / "page.html").read_text(encoding="utf-8")
    shown = re.findall(
        r'<dt>([^<]*)</dt><dd class="number">([^<]+)</dd><dd class="note"><bdi>([^<]*)', text
    )
    totals = study.totals.set_index("variant")
    base, head = "Dense", next(v for v in totals.index if v.startswith("CSR"))
    own, dense = totals.loc[head], totals.loc[base]
    stored = study.storage.query("variant == @head and scope == 'prunable'")
    sizes = stored.set_index("layout")["bytes"]
    smallest = study.facts.smallest_layout(head)
    assert [number for _, number, _ in shown] == [
        w.percent(share(own["prunable_total"], own["prunable_nonzero"])),
        w.times(ratio(own["stored_bytes"], dense["stored_bytes"])),
        w.times(ratio(sizes[smallest], sizes["dense"])),
        w.times(ratio(own["flops_per_token"], dense["flops_per_token"])),
    ]  # fmt: skip
    assert [title for title, _, _ in shown] == [
        w.say(title)
        for title in (
            "metric.zeros",
            "metric.stored_bytes",
            "card.smallest_lossless_layout",
            "metric.flops_per_token",
        )
    ]
    assert all(base in note for _, _, note in (shown[1], shown[3]))
    assert all(head in note for _, _, note in shown)


def test_the_map_holds_the_same_numbers(written):
    study, w, folder = written
    text = (folder / "page.html").read_text(encoding="utf-8")
    lead = re.search(r"<figure.*?</figure>", text, re.S)[0]
    names = [w.say(key) for key in ("kind.block", "name.projection", "chart.zeros_label")]
    layers = study.layers[
        study.layers["variant"].eq(study.facts.pruning) & study.layers["prunable"]
    ]
    expected = set()
    for row in layers.to_dict("records"):
        zeros = w.percent(share(row["weight_total"], row["weight_nonzero"]))
        values = (row["block"], row["module_name"].split(".")[-1], zeros)
        expected.add("; ".join(f"{n}: {v}" for n, v in zip(names, values, strict=True)))
    shown = {" ".join(title.split()) for title in re.findall(r"<title>(.*?)</title>", lead)}
    assert shown == {" ".join(title.split()) for title in expected}


def check_pdf(words, grid, start):
    """Find the rows of a table one after another; return where the last one stands.

    Each cell is a run of words; the words of a head end where the cells of its column end.
    """
    place, edges = start, None
    for row in grid[1:]:
        while place < len(words):
            page, top, *_ = words[place]
            line = [word for word in words[place:] if word[0] == page and abs(word[1] - top) < 2.5]
            line.sort(key=lambda word: word[2])
            matched, ends = run(line, [*map(bare, row)])
            if matched:
                break
            place += 1
        assert place < len(words), row
        edges = edges or (page, top, ends)
        while place < len(words) and words[place][0] == page and words[place][1] < top + 2.5:
            place += 1
    return place, edges


def run(line, wanted):
    """Whether words of a line, joined, are the wanted cells in order; and where each ends."""
    texts = [bare(word[4]).replace("\u200b", "") for word in line]
    for first in range(len(line)):
        ends, at = [], first
        for cell in wanted:
            joined = ""
            while at < len(line) and len(joined) < len(cell):
                joined += texts[at]
                at += 1
            if joined != cell:
                break
            ends.append(line[at - 1][3])
        else:
            return True, ends
    return False, []


def heads_above(words, page, top, ends, height=75):
    """Words above the first row by the column under whose right edge they end."""
    above = [w for w in words if w[0] == page and top - height < w[1] < top - 4]
    heads = [""] * len(ends)
    for word in sorted(above, key=lambda word: (word[1], word[2])):
        for column, end in enumerate(ends):
            if column and abs(word[3] - end) < 1.2:
                line = [
                    o for o in above
                    if abs(o[1] - word[1]) < 2 and ends[column - 1] + 1.2 < o[3] <= end + 1.2
                ]  # fmt: skip
                heads[column] += bare("".join(o[4] for o in sorted(line, key=lambda o: o[2])))
    return heads


def test_every_table_of_the_pdf(written):
    study, w, folder = written
    words = words_of(folder / "report.pdf")
    totals = totals_grid(study, w)
    groups = [[*groups_heads(w)], *groups_rows(study, w, "Dense")]
    parts = [[row[:1] + row[s : s + 4] for row in totals] for s in range(1, len(totals[0]), 4)]
    place, _ = check_pdf(words, results_grid(study, w), 0)
    for grid in [*parts, groups]:
        place, (page, top, ends) = check_pdf(words, grid, place)
        found = heads_above(words, page, top, ends)
        for head, shown in zip(grid[0][1:], found[1:], strict=True):
            assert shown.endswith(bare(head)), (head, shown)
    for variant in list(study.variants["variant"])[1:]:
        place, _ = check_pdf(words, [[], *groups_rows(study, w, variant)], place)
    place, (page, top, ends) = check_pdf(words, curve_grid(study, w), place)
    for variant in prunings(study)[:1]:  # the others are in the page
        grid = storage_grid(study, w, variant)
        place, (page, top, ends) = check_pdf(words, grid, place)
        found = heads_above(words, page, top, ends, 40)
        for column in (1, 2, 3, 4, 5):
            last = grid[0][column].removeprefix(w.say("card.prunable_weights")).strip()
            last = last.removeprefix(w.say("name.whole_model")).strip()
            assert found[column].endswith(bare(last)), (last, found)
    several = len(prunings(study)) > 1
    # Of prunings side by side every module stands once, and once more with the zeros of each.
    for variant in study.variants["variant"][: 1 if several else None]:
        grid = layers_grid(study, w, variant)
        place, (page, top, ends) = check_pdf(words, [grid[0], *short_names(grid)], place)
        found = heads_above(words, page, top, ends, height=600)
        for head, shown in zip(grid[0][4:], found[4:], strict=True):
            assert bare(head) in shown, (head, shown)
    if several:
        grid = modules_grid(study, w)
        place, (page, top, ends) = check_pdf(words, [grid[0], *short_names(grid)], place)
        found = heads_above(words, page, top, ends, height=600)
        for head, shown in zip(grid[0][1:], found[1:], strict=True):
            assert bare(head) in shown, (head, shown)


def short_names(grid):
    """Rows whose name stands on one line."""
    whole = [row for row in grid[1:] if len(row[0]) < 24]
    assert whole
    return whole


def modules_grid(study, w):
    names = ["Dense", *prunings(study)]
    grid = [[capital(w.say("column.module_name")), *names]]
    for module, own in study.layers.groupby("module_name", sort=False):
        sums = own.set_index("variant")
        shares = (share(sums["total"][name], sums["nonzero"][name]) for name in names)
        grid.append([module, *map(w.percent, shares)])
    return grid


def siunitx(text):
    """What siunitx is to read of a number that people read."""
    plain = "".join(c for c in text if c not in f"{THIN}%×").replace(",", ".")
    return "–" if plain == "–" else plain


def latex_of(grid, columns, percent=False):
    """A table of the page as the thesis kit has it: some columns, units in the heads."""
    heads, *body = grid
    kept = [0, *columns]
    percent = [percent or any("%" in row[k] for row in body) for k in kept]
    top = [f"{heads[k]} / %" if is_share and place else heads[k]
           for place, (k, is_share) in enumerate(zip(kept, percent, strict=True))]  # fmt: skip
    rest = [[row[0], *(siunitx(row[k]) for k in columns)] for row in body]
    return [top, *rest]


def transposed(grid, head):
    turned = [list(column) for column in zip(*grid, strict=True)]
    turned[0][0] = head
    return turned


def compact(grid):
    """Heads without the places where LaTeX breaks them."""
    return [[re.sub(r"\s", "", cell) for cell in row] for row in grid]


def test_every_table_of_the_thesis_kit(written):
    study, w, folder = written
    folder = folder / "thesis" / "tables"
    variant = capital(w.say("column.variant"))
    turned = transposed(totals_grid(study, w), variant)
    expected = {
        "totals": latex_of(turned, [1, 4, 7, 14, 15]),
        "sparsity": latex_of(
            transposed(comparison_grid(study, w, "sparsity", w.percent), variant),
            range(1, study.groups["group"].nunique() + 1),
            percent=True,
        ),
    }
    for name in study.variants["variant"]:
        grid = [groups_heads(w), *groups_rows(study, w, name)]
        expected[f"groups_{name.lower()}"] = latex_of(grid, [1, 2, 3, 4, 5, 7])
    for name in prunings(study):
        grid = storage_grid(study, w, name)
        expected[f"storage_{name.lower()}"] = latex_of(grid, [1, 2, 3, 5])
        for end, grid in zip(("most", "least"), extremes_grids(study, w, name), strict=False):
            expected[f"layers_{end}_{name.lower()}"] = latex_of(grid, [1, 2])
    grid = results_grid(study, w)
    columns = range(1, len(grid[0]))
    expected["results"] = latex_of([row for row in grid if len(row) > 1], columns)
    for place, row in enumerate(grid):
        if len(row) == 1:
            title = f"\\multicolumn{{{len(grid[0])}}}{{l}}{{\\emph{{{row[0]}}}"
            rules = sum(line == ["\\midrule"] for line in expected["results"])
            expected["results"][place + rules : place + rules] = [["\\midrule"], [title]]
    assert {path.stem for path in folder.glob("*.tex")} == set(expected)
    for stem, grid in expected.items():
        assert compact(latex_table(folder / f"{stem}.tex")) == compact(grid), stem


def test_every_number_by_name(written):
    study, w, folder = written
    text = (folder / "thesis" / "numbers.tex").read_text(encoding="utf-8")
    commands = dict(re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}\n", text))
    totals = study.totals.set_index("variant")
    checked = 3 + len(totals)

    def check(command, row, column):
        nonlocal checked
        value, checked = row[column], checked + 1
        if "sparsity" in column or column == "param_frac":
            if column == "sparsity":
                value = share(row["total"], row["nonzero"])
            known = f"\\qty{{{siunitx(w.percent(value))}}}{{\\percent}}"
        elif column == "threshold":
            known = f"\\num{{{siunitx(w.six(value))}}}"
        else:
            known = f"\\num{{{'' if unknown(value) else int(value)}}}"
            unit = "B" if column.endswith("_bytes") else "FLOPs" if "per_token" in column else ""
            unit = "" if column == "attention_flops_per_token" else unit
            checked += 1
            if not unknown(value):
                number, _, prefix = w.scaled(value, unit).partition(THIN)
                short = f"\\num{{{siunitx(number)}}}" + (f"\\,{prefix}" if prefix else "")
                assert commands[f"{command}Short"] == short, command
        assert commands[command] == ("\\textendash{}" if unknown(value) else known), command

    def camel(column):
        column = column.replace("attention_flops", "attention_itself_flops")
        return "".join(part.capitalize() for part in column.split("_"))

    for variant, row in totals.iterrows():
        assert commands[f"{COMMANDS[variant]}Name"] == variant
        for column in totals.columns.drop("layout"):
            check(COMMANDS[variant] + camel(column), row, column)
        known = not unknown(row["file_bytes"])
        bits = siunitx(f"{8 * row['file_bytes'] / row['total']:.2f}") if known else ""
        shown = f"\\num{{{bits}}}" if known else "\\textendash{}"
        assert commands[f"{COMMANDS[variant]}BitsPerWeight"] == shown
        checked += 1
        for column in ("stored_bytes", "flops_per_token"):
            value = siunitx(w.times(ratio(row[column], totals.loc["Dense", column])))
            assert commands[f"{COMMANDS[variant]}{camel(column)}Ratio"] == f"\\num{{{value}}}"
            checked += 1
    for row in rows(study.groups):
        group = "".join(
            word[0].upper() + word[1:] for word in Writer("en").say(GROUPS[row["group"]]).split()
        )
        for column in study.groups.columns.drop(["variant", "group"]):
            check(COMMANDS[row["variant"]] + group + camel(column), row, column)
    assert checked == len(commands)


def test_csv_files_hold_the_frames(studies, tmp_path):
    study = studies["three"]
    paths = sr.write_csv(study, tmp_path / "csv")
    frames = [study.layers, study.groups, study.totals]
    read = {}
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            read[path.stem] = list(csv.DictReader(file))
    checked = 0
    for frame in frames:
        names = [n for n, lines in read.items() if lines and set(lines[0]) == set(frame.columns)]
        lines = [line for name in names for line in read[name]]
        if not lines:
            continue
        keys = [c for c in ("variant", "module_name", "group") if c in frame.columns]
        by_key = {tuple(line[k] for k in keys): line for line in lines}
        for row in rows(frame):
            line = by_key[tuple(row[k] for k in keys)]
            for column, value in row.items():
                checked += 1
                cell = line[column]
                if value is None:
                    assert cell == "", (column, cell)
                elif isinstance(value, int | float) and not isinstance(value, bool):
                    assert float(cell) == value, (column, cell, value)
    assert checked > 2000


def layers_of(study):
    """The tables of all layers on a page, or their data."""
    sections = study_document(study, Medium("page"))["sections"]
    (section,) = [one for one in sections if one.key == "layers"]
    return section.blocks[0].values["layers"]


def test_many_layers_are_more_than_so_many(studies, monkeypatch):
    study = studies["one"]
    for rows, as_data in ((len(study.layers), False), (len(study.layers) - 1, True)):
        monkeypatch.setattr("sparsity_report.report.study_sections._ROWS", rows)
        parts = layers_of(study)
        assert {part["data"] is not None for part in parts} == {as_data}


def test_data_of_many_layers(studies, tmp_path, monkeypatch):
    study, w = studies["one"], Writer("en")
    monkeypatch.setattr("sparsity_report.report.study_sections._ROWS", 10)
    path = sr.write_report(study, tmp_path / "page.html")
    scripts = re.findall(
        r'<script type="text/plain" class="rows">(.*?)</script>',
        path.read_text(encoding="utf-8"),
    )
    scripts = [gzip.decompress(base64.b64decode(script)) for script in scripts]
    first = json.loads(scripts[0])
    # What a variant has in common with the first is said once.
    assert all("module_name" not in json.loads(script) for script in scripts[1:])
    for variant, script in zip(study.variants["variant"], scripts, strict=True):
        columns = {**first, **json.loads(script)}
        columns.pop("note")
        columns.pop("plain")
        heads, *body = layers_grid(study, w, variant)
        assert [list(cells) for cells in zip(*columns.values(), strict=True)] == body
        (table,) = [
            shown for caption, shown in tables_of(path) if f"modules of {variant}" in caption
        ]
        assert table == [heads]
