"""The figures of the viewer's script, run by Node, are those of the study in Python."""

import json
import random
import subprocess
from pathlib import Path

import numpy as np
import packing
import pandas as pd
import pytest
import torch
from browser import node
from budgets import BUDGETS, NO_BUDGETS
from helpers import Tiny, study_of
from measurements import put_in, quality
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM
from viewer_pages import Page

import sparsity_report as sr
from sparsity_report.counting.pruning_policies import families
from sparsity_report.sparse.shares import ratio
from sparsity_report.study.budget import read_budget
from sparsity_report.study.layers import used
from sparsity_report.study.levels import bytes_beside, in_layout
from sparsity_report.study.schema import METRICS
from sparsity_report.viewer.embed import widget_module
from sparsity_report.viewer.payload import encode
from sparsity_report.viewer.study_payload import policy_label, study_contents, study_payload
from sparsity_report.viewer.view_state import AT_LEVEL, LayerValues, with_consequences
from sparsity_report.words import number_format
from sparsity_report.words.sentences import say

pytestmark = pytest.mark.tools
LAYOUTS = ("csr", "bitmask", "dense")
COSTS_TO_KEEP = (
    *("2 MB", "0.7", "60 % FLOPs", "30 % of dense", "0.9 of the file", "1 GB", "1 kB"),
    "12.5 kFLOPs",
)
VALUES = [0, 0.00049, 0.0005, 0.5, 0.125, 0.0625, 0.99949, 0.9996, 1, 1.005, 0.2675, 0.3333, 2.5e-5]


def of_demo():
    weights = sr.load()
    pruning = sr.global_magnitude(weights, 0.3)
    other = sr.dense(sr.load(Tiny()), name="Tiny")
    return sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning), other)


def of_policies():
    weights = sr.load()
    lots = sr.random_unstructured(weights, 0.5, seed=3)
    prunings = (sr.n_m(weights, 2, 4), lots, sr.layerwise_magnitude(weights, 0.4))
    return sr.compare(sr.csr(prunings[0]), *map(sr.masked, prunings), patterns=True)


def of_mixture():
    torch.manual_seed(1)
    config = MixtralConfig(
        vocab_size=32, hidden_size=12, intermediate_size=20, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2,
    )  # fmt: skip
    weights = sr.load(MixtralForCausalLM(config), name="mixture")
    half = sr.masked(sr.n_m(weights, 2, 4))
    return sr.compare(sr.dense(weights), half, sr.csr(sr.global_magnitude(weights, 0.45)))


def of_mixed_types():
    model = Tiny(dtype=torch.float16)
    model.layers[0]["fc1"].bias = nn.Parameter(torch.zeros(10, dtype=torch.float32))
    nn.init.zeros_(model.layers[1]["fc2"].weight)
    return study_of(sr.load(model), 0.6)


def of_unknown():
    with torch.device("meta"):
        model = Tiny()
    return sr.compare(sr.dense(sr.load(model)))


STUDIES = [of_demo, of_policies, of_mixture, of_mixed_types, of_unknown]


def states(study, number):
    """Return random states as those of Python."""
    rng = random.Random(7)
    names = list(dict.fromkeys(study.layers["module_name"]))
    groups = list(dict.fromkeys(study.layers["group"]))
    variants = list(study.variants["variant"])
    for _ in range(number):
        policy, other = (rng.choice([*study.by_policy] or [""]) for _ in "AB")
        levels, others = (study.by_policy[p].sparsities if p else [0.3] for p in (policy, other))
        variant, against = (
            rng.choice([*variants, *([AT_LEVEL] * 3 if policy else [])]) for _ in "AB"
        )
        rows = study.facts.layers(variants[0] if variant == AT_LEVEL else variant)
        chosen = rng.choice([[], rng.sample(names, rng.randint(1, len(names)))])
        yield {
            "policy": policy, "sparsity": rng.choice(levels), "variant": variant,
            "layout": rng.choice(LAYOUTS), "metric": "sparsity", "against": against,
            "against_policy": other, "against_sparsity": rng.choice(others),
            "modules": rng.choice(["prunable", "all", "block 1", *groups]), "sort": "",
            "search": rng.choice(["", "", "block 1", "FC1", "attention", "1"]), "selection": chosen,
            "detail": rng.choice(list(rows["module_name"])),
        }  # fmt: skip


def changes(state, rng):
    """Return some values of a state, as a user of Python changes them."""
    return {key: state[key] for key in rng.sample([*state], rng.randint(1, len(state)))}


def asked(state, changed, names):
    """Return the questions to the script about a state."""
    position = {name: place for place, name in enumerate(names)}
    script_state = {
        **state,
        "selection": [position[name] for name in state["selection"]],
        "detail": position[state["detail"]],
    }
    asked = {
        "state": script_state,
        "changes": changed,
        "metrics": [*METRICS.keys() - {"sensitivity"}, "sparsity_b", "stored_bytes_b"],
    }
    return {**asked, "budgets": COSTS_TO_KEEP, "read": [*BUDGETS, *NO_BUDGETS], "values": VALUES}


def rows_in_view(study, contents, state):
    return LayerValues(study, contents, state).in_view()["module_name"].tolist()


def answers(contents, cases, folder):
    """Return the script's answers to questions about states."""
    (folder / "viewer.mjs").write_text(widget_module(), encoding="utf-8")
    (folder / "payload").write_bytes(encode(contents.header, contents.arrays))
    (folder / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    program = Path(__file__).with_name("contract.mjs")
    files = (folder / name for name in ("viewer.mjs", "payload", "cases.json"))
    done = subprocess.run([node(), program, *files], capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def numbers(rows, names, column):
    values = rows.set_index("module_name")[column].reindex(names)
    return [None if pd.isna(value) else value for value in values]


def known(value):
    return None if pd.isna(value) else value


def rows_of(study, state):
    if state["variant"] == AT_LEVEL:
        return study.by_policy[state["policy"]].at(state["sparsity"])
    return study.facts.layers(state["variant"])


def check_counts(study, contents, state, answer):
    names = contents.header["modules"]["names"]
    rows = rows_of(study, state)
    assert answer["left"] == numbers(rows, names, "weight_nonzero")
    assert answer["nonzero"] == numbers(rows, names, "nonzero")
    if state["variant"] == AT_LEVEL and state["layout"] != "bitmask":
        size, flops = {
            "csr": ("csr_bytes", "csr_flops_per_token"), "dense": ("dense_bytes", "flops_per_token")
        }[state["layout"]]  # fmt: skip
        assert answer["bytes"] == numbers(rows, names, size)
        assert answer["flops"] == numbers(rows, names, flops)
    held = LayerValues(study, contents, state).rows()
    if state["variant"] == AT_LEVEL:
        # The viewer knows one bound for all layers of a level.
        errors = rows["module_name"].map(dict(zip(names, answer["errors"], strict=True)))
        assert (rows["uncertainty"] <= errors).all()
        assert errors.any() == rows["uncertainty"].any()
        assert held["uncertainty"].tolist() == errors.tolist()
    assert answer["bytes"] == numbers(held, names, "stored_bytes")
    assert answer["flops"] == numbers(held, names, "flops_per_token")


PAIRS = {"zeros": "zeros", "prunable": "prunable_total", "share": "sparsity_prunable"}
COSTS = {
    "bytes": "stored_bytes", "base": "dense_stored_bytes", "ratio": "bytes_ratio",
    "flops": "flops_per_token", "denseFlops": "dense_flops_per_token", "flopsRatio": "flops_ratio",
}  # fmt: skip


def selected(rows, modules):
    """Return the rows of some modules, all where none are named."""
    return rows[rows["module_name"].isin(modules)] if modules else rows


def sums_of(rows, bytes_and_flops, dense):
    """Return sums over layers, their shares of zeros, and the ratios to the dense model."""
    matrices = rows[rows["prunable"]]
    costs = ("stored_bytes", "flops_per_token")
    parts = {
        "zeros": matrices["weight_total"] - matrices["weight_nonzero"],
        "prunable_total": matrices["weight_total"],
        **dict(zip(costs, bytes_and_flops, strict=True)),
        **dict(zip((f"dense_{cost}" for cost in costs), dense, strict=True)),
    }
    sums = {name: each.astype("Int64").sum(skipna=False) for name, each in parts.items()}
    shares = {
        "sparsity_prunable": ("zeros", "prunable_total"),
        "bytes_ratio": ("stored_bytes", "dense_stored_bytes"),
        "flops_ratio": ("flops_per_token", "dense_flops_per_token"),
    }
    return sums | {name: ratio(sums[part], sums[whole]) for name, (part, whole) in shares.items()}


def level_sums(levels, sparsity, selection):
    """Return the sums over layers at a level, with their matrices in CSR."""
    rows = selected(levels.at(sparsity), selection)
    csr = (rows[name] for name in ("csr_bytes", "csr_flops_per_token"))
    return sums_of(rows, csr, (rows["dense_bytes"], rows["flops_per_token"]))


def variant_sums(study, variant, selection=()):
    """Return the sums over layers of a variant."""
    rows = selected(study.facts.layers(variant), selection)
    sparse = rows["prunable"] & (rows["layout"] == "csr")
    uses = rows["uses"].to_numpy(dtype=float, na_value=1.0)
    weights = rows["weight_total"].to_numpy(dtype=np.int64, na_value=0)
    flops = pd.Series(used(2 * weights, uses), rows.index, dtype="Int64")
    stored = rows["stored_bytes"], rows["flops_per_token"]
    size = in_layout(rows, "dense")["stored_bytes"]
    dense = stored[0].mask(sparse, size), stored[1].mask(sparse, flops)
    return sums_of(rows, stored, dense)


def check_sums(study, state, answer):
    if state["variant"] == AT_LEVEL:
        levels = study.by_policy[state["policy"]]
        sums = level_sums(levels, state["sparsity"], state["selection"])
        stored = "csr"
    else:
        sums = variant_sums(study, state["variant"], state["selection"])
        stored = "csr" if study.facts.layouts[state["variant"]] == "csr" else "dense"
    pairs = PAIRS | (COSTS if state["layout"] == stored else {})
    for key, column in pairs.items():
        expected = known(sums[column])
        assert answer["sums"][key] == (expected if expected is None else pytest.approx(expected)), (
            key
        )
    if state["variant"] != AT_LEVEL or state["layout"] != "csr":
        return
    for (zeros, size, flops), share in zip(answer["curve"], levels.sparsities, strict=True):
        row = level_sums(levels, share, state["selection"])
        costs = known(row["stored_bytes"]), known(row["flops_per_token"])
        assert (zeros, size, flops) == (row["zeros"], *costs)


def check_metrics(study, contents, state, answer):
    values = LayerValues(study, contents, state)
    rows = values.rows()
    inside = rows["module_name"].isin(state["selection"])
    if not state["selection"]:
        in_block = rows["block"].eq(1).fillna(False)
        inside = {"all": True, "prunable": rows["prunable"], "block 1": in_block}.get(
            state["modules"], rows["group"] == state["modules"]
        )
    rows = rows[np.broadcast_to(inside, len(rows))]
    for metric, have in answer["metrics"].items():
        codes = np.zeros(len(rows), dtype=int)
        want = values.values(metric, rows, codes)
        want = known(want[0]) if len(want) else have
        assert have == (want if want is None else pytest.approx(want, rel=1e-9, abs=1e-9)), metric


def check_extreme(study, contents, state, answer):
    """The first layer in detail has the largest known sparsity of the scope."""
    values, names = LayerValues(study, contents, state), contents.header["modules"]["names"]
    rows = values.rows()
    shares = pd.Series(values.values("sparsity", rows, np.arange(len(rows))), rows["module_name"])
    inside = shares.reindex([names[i] for i in answer["scope"]])
    if inside.notna().any():
        assert shares[names[answer["extreme"]]] == inside.max()


def check_layouts(study, state, answer):
    if state["variant"] == AT_LEVEL:
        return
    if study.patterns is None and answer["layouts"]:
        assert (answer["fits"] is True) == state["variant"].endswith("2:4")
    table = study.facts.storage(state["variant"], "layer")
    table = table[table["name"] == state["detail"]]["bytes"]
    rows = study.facts.layers(state["variant"])
    beside = bytes_beside(rows)[rows["module_name"] == state["detail"]].iloc[0]
    for key, have in answer["layouts"].items():
        name = {"csr": "csr_int32", "two_four": "2:4"}.get(key, key)
        assert have == known(table[name] + beside)


def check_budgets(study, state, answer):
    """The script searches every layout; the level is that of the layout in view, if it has one."""
    kinds = {"stored_bytes": "bytes", "flops_per_token": "flops"}
    read = [(kinds[quantity], most, base) for quantity, most, base in BUDGETS.values()]
    assert [each and tuple(each.values()) for each in answer["read"]] == [
        *read, *[None] * len(NO_BUDGETS)
    ]  # fmt: skip
    for budget, have in zip(COSTS_TO_KEEP, answer["budgets"], strict=True):
        places = {place["layout"]: place for place in have.get("places", ())}
        assert have.get("level") == places.get(state["layout"], {}).get("level"), budget
        for layout in LAYOUTS:
            try:
                solved = sr.level_within(study, budget, policy=state["policy"], layout=layout)
            except sr.SparsityReportError:
                assert layout not in places, budget
                continue
            # Python names the unpruned model where it keeps the budget.
            place = places[solved.layout]
            assert place["level"] == solved.sparsity, budget
            written = number_format.scaled(solved.value, "FLOPs" if "FLOPs" in budget else "B", " ")
            if read_budget(budget).base is not None:
                written = number_format.multiple(solved.value, " ")
            assert written in place["text"].replace("\u202f", " "), budget


def check_texts(answer, space):
    for value, have in zip(VALUES, answer["texts"], strict=True):
        want = [
            number_format.percent(value, space=space), number_format.percent(value, 2, space=space),
            number_format.points(value), number_format.multiple(value, space),
            number_format.level(value, space), number_format.scaled(value * 1e9, "B", space),
            number_format.scaled(value * 1e5, "", space), number_format.count(round(value * 1e7)),
            number_format.figures(value - 0.4, "+.3f").replace("-", "−"),
        ]  # fmt: skip
        assert have == want, value
    sums = answer["sums"]
    assert answer["written"] == [
        number_format.percent(sums["share"], space=space),
        number_format.scaled(sums["bytes"], "B", space),
        number_format.multiple(sums["ratio"], space),
    ]


@pytest.fixture(scope="module", params=STUDIES, ids=lambda make: make.__name__)
def study(request):
    return request.param()


def test_script_shows_the_figures_of_the_study(study, tmp_path):
    wanted, contents, rng = list(states(study, 15)), study_contents(study), random.Random(3)
    header = contents.header
    changed = [changes(state, rng) for state in wanted]
    names = header["modules"]["names"]
    cases = [asked(*each, names) for each in zip(wanted, changed, strict=True)]
    given = answers(contents, cases, tmp_path)
    for state, some, answer in zip(wanted, changed, given, strict=True):
        check_counts(study, contents, state, answer)
        check_sums(study, state, answer)
        check_metrics(study, contents, state, answer)
        check_extreme(study, contents, state, answer)
        check_layouts(study, state, answer)
        if state["policy"]:
            check_budgets(study, state, answer)
        check_texts(answer, " ")
        assert with_consequences(header, answer["before"], some) == answer["after"]
        assert answer["inView"] == rows_in_view(study, contents, state)


PARTS = ("attn.q", "attn.k", "mlp.fc1", "mlp.fc2")
ATTENTION, EVERY = PARTS[:2], range(24)
# Words of a search in a scope, and the layers that they find.
SEARCHES = {
    ("", "prunable"): (PARTS, EVERY), ("3.attn", "prunable"): (ATTENTION, [3]),
    ("3.a", "prunable"): (ATTENTION, [3]), ("attention block 3", "prunable"): (ATTENTION, [3]),
    ("block   3\tattention ", "prunable"): (ATTENTION, [3]),
    ("Block 3 · attn.k", "prunable"): (["attn.k"], [3]), ("BLOCK 1", "prunable"): (PARTS, [1]),
    ("block", "prunable"): (PARTS, EVERY), ("block 1 block 2", "all"): ([], []),
    ("1", "prunable"): ({**{part: [1] for part in PARTS}, "mlp.fc1": EVERY}, None),
    ("fc", "block 12"): (PARTS[2:], [12]), ("fc1", "all"): (["mlp.fc1"], EVERY),
    ("f", "block 2"): (PARTS[2:], [2]), ("0.attn.q", "all"): (["attn.q"], [0]),
    ("a[0-9] \\d (.* $", "all"): ([], []), ("ﬁ", "all"): ([], []),
}  # fmt: skip


def blocks_of(count):
    """A model of blocks with two matrices for attention and two for MLP, and a norm after them."""
    part = {"attn": ("q", "k"), "mlp": ("fc1", "fc2")}
    top = nn.Module()
    top.layers = nn.ModuleList(
        nn.ModuleDict({
            name: nn.ModuleDict({key: nn.Linear(4, 4, bias=False) for key in keys})
            for name, keys in part.items()
        })
        for _ in range(count)
    )  # fmt: skip
    top.norm = nn.LayerNorm(4)
    return sr.load(top, name="blocks")


def test_searches_find_the_same_layers_in_page_and_python(tmp_path):
    study = sr.compare(sr.dense(blocks_of(24)))
    contents = study_contents(study)
    names = contents.header["modules"]["names"]
    first = {**contents.header["start"], "detail": names[0]}
    cases = [{**first, "search": words, "modules": scope} for words, scope in SEARCHES]
    given = answers(contents, [asked(state, {}, names) for state in cases], tmp_path)
    for state, answer, (parts, blocks) in zip(cases, given, SEARCHES.values(), strict=True):
        places = parts if blocks is None else dict.fromkeys(parts, blocks)
        wanted = {f"layers.{block}.{part}" for part, where in places.items() for block in where}
        assert set(answer["inView"]) == wanted, state["search"]
        assert answer["inView"] == rows_in_view(study, contents, state)


# Measured at 0, 30 and 90 %: 10, 12.5 and 1,234.
LEVELS_OF_SCORES = {"9": None, "10": 0.0, "12": 0.0, "12.5": 0.3, "15": 0.3, "5000": 0.9}


def test_perplexity_is_not_guessed_between_measured_levels(tmp_path):
    weights = sr.load()
    prunings = [sr.global_magnitude(weights, level) for level in (0.3, 0.9)]
    study = sr.compare(sr.dense(weights), *map(sr.masked, prunings))
    scores = quality(names=tuple(study.variants["variant"]))
    contents = study_contents(put_in(study, quality=scores))
    question = asked(next(states(study, 1)), {}, contents.header["modules"]["names"])
    question["state"]["policy"] = "global_magnitude"
    question["budgets"] = [f"perplexity ≤ {most}" for most in LEVELS_OF_SCORES]
    [answer] = answers(contents, [question], tmp_path)
    assert [each.get("level") for each in answer["budgets"]] == [*LEVELS_OF_SCORES.values()]
    assert answer["budgets"][3]["text"] == (
        "Perplexity is 12.5 at 30 %. Measured levels up to it are within 12.5; those in between "
        "were not measured."
    )


def sentence(study, state):
    """Return the sentence of a whole model."""
    layout = state["layout"]
    space = " "
    if state["variant"] == AT_LEVEL:
        levels = study.by_policy[state["policy"]]
        place = levels.sparsities.index(state["sparsity"])
        sums = level_sums(levels, state["sparsity"], ())
        size, dense = (levels.total("stored_bytes", name)[place] for name in (layout, "dense"))
        pattern = families()[state["policy"]].at(state["sparsity"]).pattern
        words = {"policy": policy_label(state["policy"])}
        shown = say("viewer.level_of", **words, level=number_format.level(state["sparsity"], space))
        if pattern:
            shown = say("viewer.pattern", pattern=str(pattern))
    else:
        sums, shown = variant_sums(study, state["variant"]), state["variant"]
        size, dense = sums["stored_bytes"], sums["dense_stored_bytes"]
    in_file = study.totals["file_bytes"].iloc[0] if study.facts.packings() else None
    text = say(
        "viewer.sentence", shown=shown,
        share=number_format.percent(sums["sparsity_prunable"], space=space),
        prunable=number_format.scaled(sums["prunable_total"], "", space),
        layout=say(f"viewer.as_{layout}"), bytes=number_format.scaled(size, "B", space),
        ratio=number_format.multiple(size / (in_file or dense), space),
        base=say("viewer.base_file" if in_file else "viewer.base_dense"),
    )  # fmt: skip
    return text[0].upper() + text[1:]


def test_chromium_shows_the_sentence_of_python(chromium, smollm2, tmp_path):
    study = sr.compare(sr.dense(smollm2), sr.csr(sr.global_magnitude(smollm2, 0.5)))
    with Page(chromium, tmp_path, study_payload(study)) as page:
        for state in states(study, 15):
            if state["variant"] != AT_LEVEL:
                own = study.facts.layouts[state["variant"]]
                state = state | {"layout": "csr" if own == "csr" else "dense"}
            shown = {"variant": state["variant"], "layout": state["layout"]}
            level = {"policy": state["policy"], "sparsity": state["sparsity"]}
            page.set(**shown, **(level if state["variant"] == AT_LEVEL else {}))
            assert page.page.locator(".sv-sentence").text_content() == sentence(study, state)


def test_bytes_of_packed_weights_are_compared_with_the_file(tmp_path):
    """Sums, metrics and budgets of a GPTQ model, whose file is smaller than its float32."""
    folder, _ = packing.packed_llama(tmp_path / "llama", "gptq-4-v1")
    study = study_of(sr.load(folder, name="packed"), 0.5)
    contents, in_file = study_contents(study), int(study.totals["file_bytes"].iloc[0])
    names = contents.header["modules"]["names"]
    files = study.facts.layers("Dense").set_index("module_name")["file_bytes"]
    start = {**contents.header["start"], "selection": [], "detail": names[2]}
    some = {"selection": names[2:5], "variant": "CSR50", "layout": "csr"}
    states = [start, {**start, "variant": AT_LEVEL, "layout": "bitmask"}, {**start, **some}]
    given = answers(contents, [asked(state, {}, names) for state in states], tmp_path)
    for state, answer in zip(states, given, strict=True):
        base = int(files[state["selection"] or names].sum())
        assert answer["sums"]["base"] == base
        assert answer["sums"]["ratio"] == answer["sums"]["bytes"] / base
        check_metrics(study, contents, state, answer)
        check_texts(answer, " ")
    assert [answer["sums"]["base"] for answer in given[:2]] == [in_file] * 2
    assert contents.header["words"]["sentence"].endswith("{ratio} the file.")
    kept = f"{in_file} B"
    assert sr.level_within(study, kept).layout == "file"
    question = {**asked(start, {}, names), "budgets": [kept, f"{in_file - 1} B"]}
    [answer] = answers(contents, [question], tmp_path)
    in_view = [{*each} & {"level", "places"} for each in answer["budgets"]]
    assert (in_view[0], bool(in_view[1])) == (set(), True)
    assert sr.level_within(study, f"{in_file + 1} B", layout="bitmask").value == in_file
