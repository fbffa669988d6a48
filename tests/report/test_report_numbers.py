"""Every number of page, PDF, thesis kit and CSV, read back cell by cell with its heads.

Numbers are read back from what was written and compared with the study's frames, written by a
formatter of this test's own. A swapped column, denominator, sign or digit fails.
"""

import html
import math
import re
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pandas as pd
import pytest
from helpers import study_of
from measurements import latency, put_in, quality
from papers import bare, facts, latex_table, poppler, tables_of
from wording import rule_of

import sparsity_report as sr
from sparsity_report.words.catalogue import catalogue

THIN = "\u202f"
GROUPS = {
    group: f"group.{group}"
    for group in ("embedding", "attention_linear", "mlp_linear", "lm_head", "norm", "other_linear")
}
LAYOUTS = {
    "dense": "layout.dense", "csr_int32": "layout.csr_int32",
    "csr_int64": "layout.csr_int64", "bitmask": "layout.bitmask", "2:4": "2:4",
    **{f"bsr_{side}": f"BSR {side} × {side}" for side in (4, 8, 16, 32)},
}  # fmt: skip
# Columns that have commands.
TOTALS = (
    "sparsity_prunable", "prunable_total", "prunable_nonzero", "sparsity_non_embedding",
    "non_embedding_total", "non_embedding_nonzero", "sparsity_model", "total", "nonzero",
    "asked_sparsity", "zeros_before", "newly_zeroed", "threshold", "stored_bytes",
    "flops_per_token", "useful_flops_per_token",
)  # fmt: skip
OF_GROUPS = (
    "modules", "total", "nonzero", "sparsity", "flops_per_token", "useful_flops_per_token",
    "stored_bytes", "param_frac",
)  # fmt: skip
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
    """How this test writes numbers."""

    def say(self, key):
        return catalogue()[key] if "." in key else key

    def fill(self, key, **values):
        """The text of a key with values that are written already."""

        def put(field):
            name, words = field[1], field[2].partition("plural ")[2].split("|")
            word = f" {words[values[name] != '1']}" if words != [""] else ""
            return values[name] + word

        return re.sub(r"\{(\w+)([^}]*)\}", put, self.say(key))

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
        return f"{sign}{rounded(shown, digits)}{THIN}%"

    def percent2(self, value):
        return self.percent(value, 2)

    def percent0(self, value):
        return self.percent(value, 0)

    def points(self, value):
        shown = rounded(100 * Fraction(value), 1)
        return shown.replace("-", "−") if value < 0 else f"+{shown}"

    def times(self, value):
        return "–" if unknown(value) else f"{rounded(Fraction(value), 2)}{THIN}×"

    def rule(self, value):
        return "–" if unknown(value) else rule_of(value)

    def multiple(self, value):
        places = range(2, 9)
        near = (n for n in places if value == 1 or round(float(value), n) != 1)
        return f"{rounded(Fraction(value), next(near))}{THIN}×"

    def scaled(self, value, unit):
        step = 0
        while value >= 1000 ** (step + 1):
            step += 1
        amount = Fraction(int(value), 1000**step)
        digits = 0 if not step or amount >= 100 else 1 if amount >= 10 else 2
        name = "".join([" kMG"[step].strip(), unit])
        return f"{rounded(amount, digits)}{THIN}{name}".removesuffix(THIN)


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
    scores = quality(levels=((0.0, 10.0), (0.3, 12.5)), names=("Dense", "Masked30"))
    one = put_in(study_of(demo, patterns=True), latency=latency(), quality=scores)
    return {"one": one, "three": three_policies(demo)}


@pytest.fixture(scope="module", params=["one", "three"])
def written(request, studies, tmp_path_factory):
    """A study, this test's writer, and the folder with all that the package wrote of it."""
    folder = tmp_path_factory.mktemp(request.param)
    study = studies[request.param]
    sr.write_report(study, folder / "page.html")
    sr.write_report(study, folder / "report.pdf")
    sr.write_thesis(study, folder / "thesis")
    return study, Writer(), folder


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
        ("column.threshold", "threshold", w.rule),
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
        inside = [row for row in own if row["group"] == group]
        weights = sum(row["total"] for row in inside)
        if not inside or (
            weights < whole / 200 and group not in {"attention_linear", "mlp_linear"}
        ):
            continue  # a small group without zeros
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


def storage_grid(study, w, variant):
    """Every layout, without the larger indices of CSR and blocks that save nothing."""
    frame = study.storage[study.storage["variant"] == variant]
    by_scope = {
        scope: {row["layout"]: row for row in rows(frame[frame["scope"] == scope])}
        for scope in ("prunable", "model")
    }
    weights, model = by_scope.values()
    heads = ("layout", "", "model_bytes", "ratio_to_dense", "break_even")
    grid = [[capital(w.say(f"column.{h}" if h else "label.prunable_bytes")) for h in heads]]
    for layout, row in weights.items():
        sizes = (row["bytes"], model[layout]["bytes"])
        if layout.startswith("bsr") and sizes[0] >= weights["dense"]["bytes"]:
            continue
        line = [
            w.say(LAYOUTS[layout]), *map(w.count, sizes),
            w.multiple(ratio(sizes[1], model["dense"]["bytes"])), w.percent(row["break_even"]),
        ]  # fmt: skip
        grid += [line] if layout != "csr_int64" else []
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


def layer_shares(study, variant):
    """Share of zeros of every prunable layer of a variant, by name and in the order of layers."""
    own = rows(study.layers[(study.layers["variant"] == variant) & study.layers["prunable"]])
    return {row["module_name"]: share(row["weight_total"], row["weight_nonzero"]) for row in own}


def results_grid(study, w):
    """Dense and every pruning, from the rows of modules and matrices and the measurements."""
    frames = {v: rows(own) for v, own in study.layers.groupby("variant", sort=False)}
    scores = {} if study.quality is None else study.quality.set_index("variant").to_dict("index")

    def row(name, label):
        prunable = [of for of in frames[name] if of["prunable"]]
        total, nonzero = (sum(of[f"weight_{k}"] for of in prunable) for k in ("total", "nonzero"))
        stored = Fraction(int(sum(of["stored_bytes"] for of in frames[name])), 10**6)
        useful = sum(of["useful_flops_per_token"] for of in frames[name])
        cells = [label, w.percent(share(total, nonzero))]
        if scores:
            cells.append(rounded(scores[name]["perplexity"], 2) if name in scores else "–")
        cells += [rounded(stored, 2), rounded(Fraction(int(useful), 10**6), 2)]
        if scores:  # measured with the speeds of ``measurements.latency``
            is_csr = name.startswith("CSR")
            return cells + [f"0.40{THIN}× (0.38–0.42)" if is_csr else "–"] * 2
        return cells

    def method(policy, layout=""):
        name = capital(w.say(f"method.{policy}"))
        layout = layout and w.say(f"layout.{layout}")
        return w.fill("results.method_layout", method=name, layout=layout) if layout else name

    heads = ["column.method", "column.zeros"]
    heads += ["column.perplexity"] if scores else []
    heads += ["results.size", "results.useful_flops"]
    heads += ["results.speed"] * 2 if scores else []
    tokens = iter(("1", "128"))
    heads = [
        capital(
            w.fill(
                head,
                unit="MFLOPs" if "flops" in head else "MB",
                tokens=next(tokens) if head == "results.speed" else "",
            )
        )
        for head in heads
    ]
    masked, csr = prunings(study)[0], study.variants["variant"].iloc[-1]
    grid = [heads, row("Dense", w.say("name.dense_baseline"))]
    grid += [] if scores else [[w.percent0(Fraction(1, 2))]]
    grid.append(row(masked, method("global_magnitude", "masked")))
    grid.append(row(csr, method("global_magnitude", "csr")))
    if not scores:
        grid.append(row("MaskedL50", method("layerwise_magnitude")))
        grid += [["2:4"], row("MaskedN24", method("magnitude"))]
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
    pruned = prunings(study)
    first = pruned[0]
    yield w.say("caption.results").rstrip("."), results_grid(study, w)
    own = study.layers[study.layers["variant"].eq(first) & study.layers["prunable"]]
    left = 100 * own["weight_nonzero"].sum() / own["weight_total"].sum()
    yield f"{100 - left:.1f}", storage_grid(study, w, first)
    for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
        yield f" {projection}", heads_grid(study, w, first, projection)
    yield "", totals_grid(study, w)
    by_variant = [([v], groups_rows(study, w, v)) for v in study.variants["variant"]]
    yield "", [groups_heads(w), *(row for title, own in by_variant for row in (title, *own))]


def test_every_table_of_the_page(written):
    study, w, folder = written
    left = tables_of(folder / "page.html")
    for said, grid in expected_tables(study, w):
        found = [pair for pair in left if pair[1] == grid and said in pair[0]]
        assert found, (said, grid, [shown for _, shown in left if shown[0] == grid[0]][:1])
        left.remove(found[0])
    # Models, variants and runtimes;
    # ``test_measured_tables`` reads what was measured: times and crossovers.
    assert len(left) == (3 if study.quality is None else 5)


def figures(text, *names):
    """Numbers in a text without some names."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "")
    return re.findall(rf"\d+(?:[.,{THIN}]\d+)*", text)


def summed(study, variant, column):
    return int(study.layers.loc[study.layers["variant"] == variant, column].sum())


def in_layout(study, variant, size):
    """Bytes of the model whose prunable weights of float32 have another size."""
    own = study.layers[(study.layers["variant"] == variant) & study.layers["prunable"]]
    total, left, pointers = (
        int(own[column].sum()) for column in ("weight_total", "weight_nonzero", "row_pointers")
    )
    return summed(study, "Dense", "stored_bytes") - 4 * total + size(total, left, pointers)


def sizes(study):
    """Bytes of the whole model dense, in CSR with int32 indices, and as a bitmask."""
    first = prunings(study)[0]
    csr = in_layout(study, first, lambda _, left, pointers: 8 * left + 4 * pointers)
    bitmask = in_layout(study, first, lambda total, left, _: 4 * left + total // 8)
    return summed(study, "Dense", "stored_bytes"), csr, bitmask


def expected_strip(study, w):
    """Title, number, and numbers of the note of each figure at the head."""

    def change(before, after, unit=""):
        return f"{w.scaled(before, unit)} → {w.scaled(after, unit)}"

    dense, _, bitmask = sizes(study)
    flops = summed(study, "Dense", "flops_per_token")
    (useful,) = {summed(study, v, "useful_flops_per_token") for v in prunings(study)}
    size_as = w.fill("strip.size_as", layout=w.say("layout.bitmask"))
    costs = [
        (size_as, change(dense, bitmask, "B"), ["32"]),
        # No weight of Dense is zero.
        (w.say("strip.useful_flops"), change(flops, useful), figures(w.scaled(flops, ""))),
    ]
    if study.quality is None:
        none = w.say("strip.not_measured")
        quality, speed = ((w.say(f"strip.{key}"), none, []) for key in ("quality", "speed"))
    else:
        scores = study.quality["perplexity"]
        known = " → ".join(rounded(score, 1) for score in scores)
        quality = w.say("strip.perplexity"), known, ["64"]
        speed = w.say("strip.speed"), w.times(0.4), ["0.38", "0.42", "1"]
    return [quality, *costs, speed]


@pytest.mark.tools
def test_verdict_strip_and_title_of_the_hero(written):
    study, w, folder = written
    text = (folder / "page.html").read_text(encoding="utf-8")
    text = re.sub("</?(?:span|code)[^>]*>", "", text)
    strip = re.findall(
        r'<dt>([^<]*)</dt><dd class="number">([^<]+)</dd><dd class="note"><bdi>(.*?)</bdi>', text
    )
    shown = [(title, number, figures(note)) for title, number, note in strip]
    assert shown == expected_strip(study, w)
    dense, csr, bitmask = sizes(study)
    asked = w.percent0(study.variants["asked_sparsity"].dropna().iloc[0])
    known = [] if study.quality is None else study.quality["perplexity"]
    weights = w.scaled(study.totals["prunable_total"].iloc[0], "")
    known = [asked, weights, *(rounded(score, 1) for score in known)]
    found = re.search('<h1 class="verdict"[^>]*>(.*?)</h', text, re.S)[1]
    verdict = html.unescape(re.sub("<[^>]*>", "", found))
    larger, saved = ratio(csr, dense) - 1, w.percent0(1 - ratio(bitmask, dense))
    changes = [w.percent0(larger)] if study.quality is not None else []
    assert figures(verdict) == figures(" ".join([*known, *changes, saved]))
    assert not changes or w.fill("verdict.csr_larger", share=changes[0])[1:] in verdict
    paper = paper_of(folder)
    for shown in (verdict, *map("".join, strip)):
        assert bare(html.unescape(shown)) in paper, shown


def test_callouts_and_method(written):
    study, w, folder = written
    first = prunings(study)[0]
    settings = study.variants.set_index("variant").loc[first]
    shares, own = layer_shares(study, first), study.layers[study.layers["variant"] == first]
    ends = [min(shares, key=shares.get), max(shares, key=shares.get)]
    text = (folder / "page.html").read_text(encoding="utf-8")

    def bullets(section):
        body = re.search(rf'<section id="{section}".*?</section>', text, re.S)[0]
        items = (re.sub("<[^>]*>", "", li) for li in re.findall(r"<li>(.*?)</li>", body, re.S))
        return body, [html.unescape(item) for item in items]

    body, shown = bullets("where")
    (sentence,) = shown
    assert all(name in sentence for name in ends)
    numbers = [f"{100 * settings['asked_sparsity']:g}", w.rule(settings["threshold"])]
    numbers += [w.percent(shares[end]) for end in ends]
    left = figures(sentence, *ends, *study.variants["variant"])
    assert left == figures(" ".join(numbers)), sentence
    body, shown = bullets("method")
    if study.quality is not None:
        assert figures(html.unescape(re.sub("<[^>]*>", "", body)))[:4] == ["99", "100", "64", "32"]
    closed = own.assign(left=own["total"] - own["weight_total"].where(own["prunable"], 0))
    inside = [count for count in closed.groupby("group", sort=False)["left"].sum() if count]
    total = int(own["total"].sum())
    numbers = [w.count(sum(inside)), w.count(total), w.percent(ratio(sum(inside), total))]
    found = [figures(sentence) for sentence in shown]
    (found,) = [own for own in found if own[:3] == figures(" ".join(numbers))]
    assert sorted(found[3:]) == sorted(map(w.count, inside))


def test_the_map_holds_the_same_numbers(written):
    study, w, folder = written
    text = (folder / "page.html").read_text(encoding="utf-8")
    names = [w.say(key) for key in ("kind.block", "name.projection", "chart.zeros_label")]
    layers = study.layers[
        study.layers["variant"].eq(study.facts.pruning) & study.layers["prunable"]
    ]
    expected = set()
    for row in layers.to_dict("records"):
        zeros = w.percent(share(row["weight_total"], row["weight_nonzero"]))
        values = (row["block"], row["module_name"].split(".")[-1], zeros)
        expected.add("; ".join(f"{n}: {v}" for n, v in zip(names, values, strict=True)))
    shown = {" ".join(title.split()) for title in re.findall(r"<title>(.*?)</title>", text)}
    assert shown >= {" ".join(title.split()) for title in expected}


def paper_of(folder):
    """Text of the PDF in the order in which it is set: table rows cell by cell."""
    return bare(poppler("pdftotext", folder / "report.pdf", "-raw"))


@pytest.mark.tools
def test_tables_of_the_pdf(written):
    study, w, folder = written
    text, place = paper_of(folder), 0
    stored = storage_grid(study, w, prunings(study)[0])
    for row in [*results_grid(study, w), *stored]:
        place = text.find(bare("".join(row)), place)
        assert place >= 0, row
    assert int(facts(folder / "report.pdf")["Pages"]) <= 6


def siunitx(text):
    """What siunitx is to read of a number that people read."""
    if "(" in text:  # an interval is text
        return text
    plain = "".join(c for c in text if c not in f"{THIN}%×").replace(",", ".")
    return "–" if plain == "–" else plain


def latex_of(grid, columns):
    """A table of the page as the kit has it: some columns, units in the heads, titles in rows."""
    heads, *body = grid
    kept, lines = [0, *columns], [row for row in body if len(row) > 1]
    shares = [place and any("%" in row[place] for row in lines) for place in kept]
    table = [[f"{heads[k]} / %" if own else heads[k] for k, own in zip(kept, shares, strict=True)]]
    for row in body:
        if len(row) == 1:
            title = f"\\multicolumn{{{len(kept)}}}{{l}}{{\\emph{{{row[0]}}}"
            table += [["\\midrule"], [title]] if table[1:] else [[title]]
        else:
            table.append([row[0], *(siunitx(row[k]) for k in columns)])
    return table


def transposed(grid, head):
    turned = [list(column) for column in zip(*grid, strict=True)]
    turned[0][0] = head
    return turned


def compact(grid):
    """Heads without the places where LaTeX breaks them."""
    return [[re.sub(r"\s", "", cell) for cell in row] for row in grid]


def test_every_table_of_the_thesis_kit(written):
    study, w, folder = written
    folder, first = folder / "thesis" / "tables", prunings(study)[0]
    totals = transposed(totals_grid(study, w), capital(w.say("column.variant")))
    results = results_grid(study, w)
    expected = {
        "totals": latex_of(totals, [1, 4, 7, 14, 15]),
        "storage": latex_of(storage_grid(study, w, first), [1, 2, 3, 4]),
        "results": latex_of(results, range(1, len(results[0]))),
    }
    # ``test_measured_tables`` reads crossovers.
    stems = {path.stem for path in folder.glob("*.tex")} - {"crossover"}
    assert stems == set(expected)
    for stem, grid in expected.items():
        assert compact(latex_table(folder / f"{stem}.tex")) == compact(grid), stem


def test_captions_of_the_thesis_kit(written):
    study, w, folder = written
    text = (folder / "thesis" / "captions.tex").read_text(encoding="utf-8")
    captions = dict(re.findall(r"\\newcommand\{\\Caption(\w+)\}\{(.*)\}\n", text))
    first, settings = prunings(study)[0], study.variants.set_index("variant")
    shares = layer_shares(study, first).values()
    numbers = [w.percent0(settings["asked_sparsity"][first])]
    numbers += [w.rule(settings["threshold"][first]), *map(w.percent, (min(shares), max(shares)))]
    assert figures(captions[f"Map{COMMANDS[first]}"]) == figures(" ".join(numbers))
    maps = [name for name in captions if name.startswith("Map")]
    assert len(maps) == sum(is_uneven(map_grid(study, w, name)) for name in prunings(study))
    measured = set() if study.quality is None else {"Speed"}
    assert captions.keys() - maps == {"Bytes", *measured}


def measured_numbers(study):
    """Commands of perplexities and speeds, from the frames; that of CSR30 alone is no noise."""

    def percent(share, digits):
        return f"\\qty{{{100 * share:.{digits}f}}}{{\\percent}}"

    for row in [] if study.quality is None else rows(study.quality):
        stem = COMMANDS[row["variant"]]
        yield f"{stem}Perplexity", f"\\num{{{row['perplexity']:.2f}}}"
        yield f"{stem}PerplexityProtocol", row["protocol"]
        yield f"{stem}TopOne", percent(row["top1"], 1)
        yield f"{stem}KL", f"\\num{{{row['kl']:.3g}}}" if row["kl"] else "\\num{0.00}"
        yield f"{stem}Agreement", percent(row["agreement"], 2)
        yield f"{stem}Flips", percent(row["flips"], 2)
    for row in [] if study.latency is None else rows(study.latency.query("scope == 'model'")):
        tokens = {1: "One", 128: "OneTwoEight"}[row["tokens"]]
        columns = {"Promised": "promised_speedup"}
        if row["variant"] == "CSR30":
            columns |= {"Realised": "realised_speedup", "RealisedLow": "realised_low"}
            columns["RealisedHigh"] = "realised_high"
        for name, column in columns.items():
            yield f"{COMMANDS[row['variant']]}{tokens}Tokens{name}", f"\\num{{{row[column]:.2f}}}"


def test_every_number_by_name(written):
    study, w, folder = written
    text = (folder / "thesis" / "numbers.tex").read_text(encoding="utf-8")
    commands = dict(re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}\n", text))
    totals = study.totals.set_index("variant")
    checked = 5 + len(totals)

    def check(command, row, column):
        nonlocal checked
        value, checked = row[column], checked + 1
        if "sparsity" in column or column == "param_frac":
            if column == "sparsity":
                value = share(row["total"], row["nonzero"])
            known = f"\\qty{{{siunitx(w.percent(value))}}}{{\\percent}}"
        elif column == "threshold":
            known = f"\\num{{{siunitx(w.rule(value))}}}"
        else:
            known = f"\\num{{{'' if unknown(value) else int(value)}}}"
            unit = "B" if column.endswith("_bytes") else "FLOPs" if "per_token" in column else ""
            if short := unit or column == "total":
                checked += 1
            if short and not unknown(value):
                number, _, prefix = w.scaled(value, unit).partition(THIN)
                short = f"\\num{{{siunitx(number)}}}" + (f"\\,{prefix}" if prefix else "")
                assert commands[f"{command}Short"] == short, command
        assert commands[command] == ("\\textendash{}" if unknown(value) else known), command

    def camel(column):
        name = f"performed_{column}" if column == "flops_per_token" else column
        return "".join(part.capitalize() for part in name.split("_"))

    for variant, row in totals.iterrows():
        assert commands[f"{COMMANDS[variant]}Name"] == variant
        for column in TOTALS:
            check(COMMANDS[variant] + camel(column), row, column)
        for column in ("stored_bytes", "flops_per_token"):
            value = siunitx(w.multiple(ratio(row[column], totals.loc["Dense", column])))
            assert commands[f"{COMMANDS[variant]}{camel(column)}Ratio"] == f"\\num{{{value}}}"
            checked += 1
    for row in rows(study.groups):
        group = "".join(
            word[0].upper() + word[1:] for word in Writer().say(GROUPS[row["group"]]).split()
        )
        for column in OF_GROUPS:
            check(COMMANDS[row["variant"]] + group + camel(column), row, column)
    measured = dict([*commands.items()][checked:])
    assert measured == dict(measured_numbers(study))
