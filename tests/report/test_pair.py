"""Two checkpoints on a page, on paper, in a thesis and in a cell: every number read back.

What is expected is computed here from the rows of modules and of what is gone.
"""

import re
from dataclasses import replace

import hostile
import pandas as pd
import pytest
from helpers import command
from pairs import figures, gone, removed_like, sides, two_policies
from papers import bare, head, latex_table, tables_of, text_of

import sparsity_report as sr
from sparsity_report.draw import charts
from sparsity_report.files.package_data import DEMO
from sparsity_report.report.study_sections import study_document
from sparsity_report.report.tables import checkpoint_tables
from sparsity_report.report.tables.plain_text import to_text
from sparsity_report.report.tables.table_model import table_of
from sparsity_report.report.value_display import bundle
from sparsity_report.study.schema import columns_of
from sparsity_report.words.sentences import say

THIN = "\u202f"
EXPERTS = {block: (1, 6) if block < 2 else (0, 2, 3, 4) for block in range(4)}


def whole(number):
    return f"{int(number):,}".replace(",", THIN)


def percent(share):
    return f"{100 * share:.1f}{THIN}%"


@pytest.fixture(scope="module")
def pair(demo):
    """Two policies of one model, of which experts, a block and a module were taken away, too."""
    rows = [
        gone("expert", f"model.layers.{block}.experts", number, 8, block, 1 - block / 64)
        for block, numbers in EXPERTS.items()
        for number in numbers
    ]
    rows += [gone("block", f"model.layers.{n}", n, 6, n, weights=9000) for n in (1, 4)]
    return two_policies(demo, rows)


@pytest.fixture(scope="module")
def page(pair, tmp_path_factory):
    return sr.write_report(pair, tmp_path_factory.mktemp("pair") / "pair.html")


def grid_of(path, *heads):
    """The one table whose heads begin so."""
    (grid,) = [grid for _, grid in tables_of(path) if tuple(grid[0][: len(heads)]) == heads]
    return grid


def spec_of(pair):
    return charts.blocks_chart(pair).to_dict()


def values_of(spec):
    (rows,) = spec["datasets"].values()
    return rows


def test_columns_are_shares_of_the_base_by_block(pair, page):
    rows = pair.matches[pair.matches["prunable"]]
    revived, kept = (rows[name].groupby(rows["block"]).sum() for name in ("revived", "kept"))
    expected = {str(block): share for block, share in (revived / (revived + kept)).items()}
    spec = spec_of(pair)
    drawn = {row["row"]: row["value"] for row in values_of(spec)}
    assert drawn == pytest.approx(expected)
    assert spec["layer"][0]["encoding"]["y"]["scale"]["domain"] == [0, max(drawn.values())]
    most = max(expected, key=expected.get)
    title = f"Largest share of revived zeros: block {most}, {percent(expected[most])} of the zeros"
    assert bare(study_document(pair, "page")["hero"].title) == bare(title)
    assert spec["title"]["text"] == "Zeros revived ÷ zeros of the base by block"
    shown = {row[0]: row[1:] for row in grid_of(page, "Block", head("column.weight_before"))[1:]}
    assert {name: cells[-1] for name, cells in shown.items()} == {
        name: percent(share) for name, share in expected.items()
    }
    gone_ = (rows["weight_before"] - rows["compared"]).groupby(rows["block"]).sum()
    assert {name: cells[1] for name, cells in shown.items()} == {
        str(block): whole(number) for block, number in gone_.items()
    }


def test_equal_shares_are_not_drawn(demo, tmp_path):
    """Nothing, then half of each block, then half as many in one."""
    same = sr.compare_checkpoints(demo, demo)
    even = sr.compare_checkpoints(demo, sr.n_m(demo, 2, 4))
    for pair in (same, even):
        assert charts.blocks_chart(pair) is None
        page = sr.write_report(pair, tmp_path / "p.html").read_text(encoding="utf-8")
        assert 'id="blocks-figure"' not in page
        sr.write_thesis(pair, tmp_path / "kit")
        assert "section{Figures}" not in (tmp_path / "kit" / "example.tex").read_text()
    layers = even.matches.copy()
    layers.loc[layers["block"] == 1, "new"] //= 2
    uneven = replace(even, matches=layers)
    (others, low) = (
        {row["value"] for row in values_of(spec_of(uneven)) if (row["row"] == "1") is one}
        for one in (False, True)
    )
    assert (others, low) == ({0.5}, {0.25})
    title = study_document(uneven, "page")["hero"].title
    assert title.startswith("Largest share of new zeros: block 0, block 2 and block 3, 50.0")
    halved = layers["new"].where(layers["group"] == "mlp_linear", layers["new"] // 2)
    nowhere = pd.array([None] * len(layers), dtype="Int64")
    unnumbered = replace(even, matches=layers.assign(block=nowhere, new=halved))
    attention, mlp = values_of(spec_of(unnumbered))
    assert (attention["row"], mlp["row"]) == ("attention", "MLP")
    assert attention["value"] < mlp["value"]


def test_long_lists_of_indices_end_in_a_count(pair):
    numbers = [n for n in range(126) if n % 3]  # 42 spans of two
    rows = [gone("channel", "mlp", n, 126, 0) for n in numbers]
    many = replace(pair, removed=removed_like(pair, rows))
    (row,) = checkpoint_tables.removed(many, 10).rows
    assert row.cells[4].text.startswith("1–2, 4–5, 7–8, ")
    assert row.cells[4].text.endswith(", 118–119, 4 more")
    assert row.cells[2].text == "84"
    (short, _) = checkpoint_tables.small(many)
    assert short.rows[0].cells[4].text == "1–2, 4–5, 7–8, 10–11, 76 more"


def test_removed_parts_are_listed_with_their_weights(pair, page):
    _, *rows = grid_of(page, "Kind", "Module")
    assert len(rows) == pair.removed.groupby(["kind", "module"]).ngroups
    kinds = {"expert": "expert", "block": "block"}
    for kind, module, count, among, numbers, certainty, *sums in rows:
        of = pair.removed[(pair.removed["module"] == module)]
        assert {kinds[k] for k in of["kind"]} == {kind}
        assert (int(count), int(among)) == (len(of), of["among"].iloc[0])
        spans = [span.split("–") for span in numbers.split(", ")]
        listed = [n for span in spans for n in range(int(span[0]), int(span[-1]) + 1)]
        assert listed == sorted(of["index"])
        assert certainty == percent(of["certainty"].min())
        columns = ("weights", "parameters", "bytes", "flops_per_token")
        assert sums == [whole(of[column].sum()) for column in columns]


def test_the_fate_of_zeros_is_counted_by_group(pair, page):
    rows = pair.matches[pair.matches["prunable"]]
    _, first, *_ = grid_of(page, "Group", "Weights in both")
    sums = rows[["compared", "zeros_before", "kept", "revived", "new"]].sum()
    zeros = sums["kept"] + sums["revived"]
    assert first[:9] == [
        "all prunable weights", whole(sums["compared"]), whole(zeros),
        whole(sums["kept"] + sums["new"]), whole(sums["kept"]), whole(sums["revived"]),
        whole(sums["new"]), percent(sums["kept"] / zeros),
        percent(sums["kept"] / (zeros + sums["new"])),
    ]  # fmt: skip


def test_the_strip_goes_from_before_to_after(pair):
    shown = {card["title"]: card for card in study_document(pair, "page")["strip"]}
    rows = [frame[frame["prunable"]] for frame in sides(pair)]
    shares = [1 - f["weight_nonzero"].sum() / f["weight_total"].sum() for f in rows]
    assert percent(shares[0]) == percent(shares[1]) == shown[say("strip.zeros")]["number"]
    row = pair.survival.iloc[0]
    revived = shown[say("strip.revived")]
    assert revived["number"] == percent(row["revived"] / row["zeros_before"])
    for number in (row["revived"], row["zeros_before"]):
        assert whole(number) in revived["note"]
    before, after = (frame["total"].sum() for frame in sides(pair))
    assert shown[say("strip.parameters")]["number"] == f"{before / 1000:.0f}{THIN}k"
    assert before == after
    # A model of a quarter of the blocks has fewer parameters.
    smaller = pair.layers[
        pair.layers["variant"].eq("Before") | pair.layers["block"].fillna(0).eq(0)
    ]
    shown = study_document(replace(pair, layers=smaller), "page")["strip"][2]
    after = smaller.loc[smaller["variant"] == "After", "total"].sum()
    assert shown["number"] == f"{before / 1000:.0f}{THIN}k → {after / 1000:.0f}{THIN}k"


def test_totals_are_sums_of_modules(pair, tmp_path):
    left = pair.layers["variant"].eq("Before") | pair.layers["block"].fillna(0).eq(0)
    smaller = replace(pair, layers=pair.layers[left])
    page = sr.write_report(smaller, tmp_path / "smaller.html")
    grid = grid_of(page, head("column.figure"), "Before")
    shown = {row[0]: row[1:] for row in grid[1:]}
    for name, column in (
        ("Parameters", "total"), ("Stored bytes", "stored_bytes"),
        ("Performed FLOPs per token", "flops_per_token"),
        ("Active parameters per token", "active_total"),
    ):  # fmt: skip
        before, after = (int(frame[column].sum()) for frame in sides(smaller))
        taken = before - after
        assert taken > 0
        assert shown[name] == [*map(whole, (before, after, taken)), percent(taken / before)]


def test_sparsities_are_sums_of_modules(pair, page):
    grid = grid_of(page, "", "Before", "After")
    zeros = [row for row in grid[1:] if row[0].startswith(say("column.gone_of_base").capitalize())]
    rows = pair.matches[pair.matches["prunable"]]
    there = (rows["compared"] - rows["kept"] - rows["new"]).sum()
    shares = [1 - there / rows["weight_before"].sum()]
    before, after = sides(pair)
    left = after[~after["group"].isin(["embedding", "lm_head"])]["nonzero"].sum()
    of_base = before[~before["group"].isin(["embedding", "lm_head"])]["total"].sum()
    shares += [1 - left / of_base, 1 - after["nonzero"].sum() / before["total"].sum()]
    assert [row[1:] for row in zeros] == [["–", f"{100 * s:.2f}{THIN}%"] for s in shares]


def test_the_page_has_the_sentences(pair, page):
    text = bare(re.sub("<wbr>|</?bdi>|</?span[^>]*>", "", page.read_text(encoding="utf-8")))
    for sentence in pair.sentences():
        assert bare(sentence) in text


@pytest.mark.tools
def test_paper_holds_the_same_numbers(pair, tmp_path):
    text = text_of(sr.write_report(pair, tmp_path / "pair.pdf"))
    assert bare(pair.sentences()[0]).replace(THIN, "") in text.replace(THIN, "")
    for row in pair.survival.to_dict("records"):
        assert bare(whole(row["revived"])).replace(THIN, "") in text.replace(THIN, "")


def test_a_thesis_has_figures_tables_and_numbers(pair, tmp_path):
    written = {path.relative_to(tmp_path).as_posix() for path in sr.write_thesis(pair, tmp_path)}
    assert {f"figures/blocks_{w}.pdf" for w in ("column", "text")} <= written
    numbers = dict(
        re.findall(r"\\newcommand\{\\(\w+)\}\{(.*)\}", (tmp_path / "numbers.tex").read_text())
    )
    rows = pair.matches[pair.matches["prunable"]]
    assert numbers["AllKept"] == f"\\num{{{rows['kept'].sum()}}}"
    assert numbers["AllRevived"] == f"\\num{{{rows['revived'].sum()}}}"
    kept = rows["kept"].sum() / (rows["kept"] + rows["revived"]).sum()
    assert numbers["AllKeptShare"] == f"\\qty{{{100 * kept:.1f}}}{{\\percent}}"
    assert numbers["ExpertsGone"] == f"\\num{{{sum(map(len, EXPERTS.values()))}}}"
    assert numbers["BeforePrunableTotal"] == f"\\num{{{rows['weight_before'].sum()}}}"
    assert numbers["PrunableWeightsRemoved"] == "\\num{0}"
    assert numbers["StudyFingerprint"] == pair.fingerprint
    captions = (tmp_path / "captions.tex").read_text()
    assert "\\newcommand{\\CaptionBlocks}" in captions
    _, first, *_ = latex_table(tmp_path / "tables" / "survival.tex")
    assert first[1:5] == [str(rows[c].sum()) for c in ("compared", "kept", "revived", "new")]
    assert "\\input{tables/removed}" in (tmp_path / "example.tex").read_text()


def test_in_a_cell_it_is_a_picture_a_sentence_and_a_table(pair):
    shown = bundle(pair)
    assert shown["text/plain"] == repr(pair)
    assert len(repr(pair).splitlines()) == 3
    assert shown["text/html"].count("<svg") == 2
    assert pair._repr_mimebundle_() == shown
    weights = figures(pair)["before"]["prunable_weights"]
    assert whole(weights) in shown["text/html"]


def test_as_text_columns_stand_below_their_heads(pair):
    gone_, kept = checkpoint_tables.small(pair, limit=3)
    assert [column.name for column in gone_.columns][:3] == ["kind", "module", "gone"]
    assert gone_.caption.endswith(f"he first 3 of {pair.removed['module'].nunique()} rows.")
    caption, *lines = to_text(kept).splitlines()
    assert caption == kept.caption
    for row in kept.rows:
        (line,) = [line for line in lines if line.startswith(row.cells[0].text)]
        assert [*re.split(r"\s{2,}", line)] == [cell.text for cell in row.cells]
    first = len(lines) - len(kept.rows)
    # Numbers end where their head does.
    assert {len(line) for line in lines[-3:]} == {len(lines[first - 1])}
    assert first <= 4
    columns = columns_of("variant total", variant="模型", total="W")
    names = ("模型", "e\u0301", "abcd")
    wide = table_of("t", "", columns, [{"variant": name, "total": 1} for name in names])
    # Letters as wide as two, and one that is drawn over another.
    assert to_text(wide).splitlines() == ["模型  W", "模型  1", "e\u0301     1", "abcd  1"]


def test_added_weights_are_negative(pair):
    before = pair.layers["variant"].eq("Before")
    fewer = pd.concat([pair.layers[before].head(3), pair.layers[~before]])
    turned = replace(pair, layers=fewer)
    table = checkpoint_tables.changes(turned)
    row = next(row for row in table.rows if row.cells[0].text == "Parameters")
    before, after = (int(frame["total"].sum()) for frame in sides(turned))
    assert row.cells[3].text == f"−{whole(after - before)}"
    assert row.cells[4].text.startswith("−")


def test_hostile_names_are_text_everywhere(pair, tmp_path):
    texts = list(hostile.TEXTS.values())
    count = len(pair.matches)
    names = [f"layers.{n % 3}.{text}" for n, text in enumerate((texts * 2)[:count])]
    matches = pair.matches.assign(module_name=names, after_name=[n + "x" for n in names])
    rows = [gone("head", text, 1, 4, None) for text in texts]
    variants = pair.variants.assign(model=hostile.NAMES[:2], source=hostile.NAMES[1:3])
    named = replace(pair, matches=matches, variants=variants, removed=removed_like(pair, rows))
    harmless = sr.write_report(pair, tmp_path / "harmless.html").read_text(encoding="utf-8")
    page = sr.write_report(named, tmp_path / "hostile.html").read_text(encoding="utf-8")
    for markup in ("<img", "<svg onload", "</textarea", "<b>", "<script"):
        assert page.count(markup) - harmless.count(markup) <= (1 if markup == "<script" else 0)
    # Those of the script that draws.
    assert hostile.UNSEEN.findall(page) == hostile.UNSEEN.findall(harmless)
    assert sr.write_report(named, tmp_path / "hostile.pdf").stat().st_size > 10_000
    sr.write_thesis(named, tmp_path / "thesis")
    for path in (tmp_path / "thesis").rglob("*.tex"):
        text = path.read_text(encoding="utf-8")
        assert "\\write18" not in text
        assert "\\input{/etc" not in text
    shown = bundle(named)
    assert "<img" not in shown["text/html"]
    assert "<script" not in shown["text/html"]


def test_command_writes_each_output(tmp_path):
    wanted = [part for kind in ("html", "pdf", "json") for part in ("-o", tmp_path / f"p.{kind}")]
    run = command("pair", DEMO, DEMO, *wanted, "--thesis", tmp_path / "thesis")
    assert (run.returncode, run.stderr) == (0, "")
    for kind in ("html", "pdf", "json"):
        assert (tmp_path / f"p.{kind}").stat().st_size > 1000
    assert (tmp_path / "thesis" / "numbers.tex").is_file()
    assert sr.read_study(tmp_path / "p.json").sentences() == run.stdout.splitlines()[:-4]
    refused = command("pair", DEMO, DEMO, "-o", tmp_path / "p.txt")
    assert refused.returncode == 2
    assert "use .html, .pdf, .md or .json" in refused.stderr


def test_large_pairs_name_what_compiles_the_comparison(monkeypatch):
    monkeypatch.setattr("sparsity_report.pairing.value_loops.compiled_compare", lambda: None)
    assert command("pair", DEMO, DEMO).stderr == ""
    size = sum(p.total for p in sr.load().stored)
    for most, hints in ((size, 1), (size + 1, 0)):
        monkeypatch.setattr("sparsity_report.cli.pair_command.MANY", most)
        assert command("pair", DEMO, DEMO).stderr.count("run pip install numba\n") == hints
