"""Heads and experts in the viewer: their zeros by numpy, their names, mouse and keys."""

import re

import numpy as np
import pytest
import torch
import transformers
from browser import drawn, violations
from mixtures import mixture
from torch import nn

import sparsity_report as sr
from sparsity_report.report.page import write_explorer
from sparsity_report.words.number_format import percent, scaled
from sparsity_report.words.sentences import say

KEYS = ("gate", "up", "down")
MIXTRAL = {"num_key_value_heads": 1, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def mixtral():
    return sr.load(mixture("Mixtral", **MIXTRAL), name="Mixtral")


def zeros_by_numpy(variant, module, axis, heads):
    """Return the share of zeros of each head or fused expert, from the values and the mask."""
    zero, totals = 0, 0
    for p in (p for p in module.parameters if p.prunable):
        values = variant.weights.tensor(p.name).float().numpy()
        if variant.pruning is not None:
            values = values * variant.pruning.mask(p.name)
        # One axis holds the parts, each of whole rows, columns or matrices.
        parts = np.split(values, heads or len(values), axis=axis)
        zero = zero + np.array([np.sum(part == 0) for part in parts])
        totals += parts[0].size
    return (zero / totals).tolist()


@pytest.mark.parametrize(
    ("model", "heads"),
    [
        ("demo", {"q_proj": 4, "k_proj": 4, "v_proj": 4, "out_proj": 4}),
        pytest.param(
            "smollm2", {"q_proj": 9, "k_proj": 3, "v_proj": 3, "o_proj": 9}, marks=pytest.mark.tools
        ),
        pytest.param(
            "minilm", dict.fromkeys(("query", "key", "value", "dense"), 12), marks=pytest.mark.tools
        ),
        ("mixtral", {"q_proj": 4, "o_proj": 4, "experts": 0}),
    ],
)
def test_the_kernel_counts_parts_exactly(model, heads, request):
    weights = request.getfixturevalue(model)
    study = sr.compare(sr.dense(weights), sr.masked(sr.global_magnitude(weights, 0.4)))
    explorer = sr.explore(study)
    sent = []
    explorer.send = lambda message, _=None: sent.append(message)
    header = explorer._contents.header
    names = header["modules"]["names"]
    assert header["inner"] == {}
    modules = {module.name: module for module in weights.modules}
    for place, variant in enumerate(study.opened):
        listed = {names[k]: count for k, count in header["heads"][place].items()}
        block = {n: count for n, count in listed.items() if re.search(r"\.1\.", n)}
        assert {n.rpartition(".")[2]: count for n, count in block.items()} == heads
        for name, count in block.items():
            content = {"type": "inner", "variant": variant.name, "module": name}
            explorer._handle_custom_msg(content, [])
            zeros = sent.pop()["inner"]
            is_output = name.endswith(("o_proj", "out_proj", "output.dense"))
            wanted = zeros_by_numpy(variant, modules[name], int(is_output), count)
            assert zeros["heads" if count else "experts"] == pytest.approx(wanted, abs=1e-12)
            assert not zeros["experts" if count else "heads"]


class Opened:
    """The page of a study, and what it complains about."""

    def __init__(self, browser, folder, study, width=1440):
        self._page = browser.new_page(viewport={"width": width, "height": 900})
        self.complaints = []
        self._page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self._page.on("console", lambda line: self.complaints.append(line.text))
        self._page.goto(write_explorer(study, folder / "page.html").as_uri())
        self._page.locator(".sv-ready").wait_for()

    @property
    def page(self):
        return drawn(self._page)

    def set(self, **traits):
        code = "traits => document.querySelector('.sparsity-viewer').viewer.set(traits)"
        self.page.evaluate(code, traits)

    @property
    def state(self):
        return self.page.evaluate("document.querySelector('.sparsity-viewer').viewer.state")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._page.close()
        assert self.complaints == []


def experts():
    """A mixture whose eight experts are modules of three matrices each."""
    torch.manual_seed(0)
    layers = nn.ModuleList()
    for _ in range(2):
        block = nn.Module()
        block.attn = nn.ModuleDict({key: nn.Linear(8, 8, bias=False) for key in "qkvo"})
        block.experts = nn.ModuleList(
            nn.ModuleDict({f"{key}_proj": nn.Linear(8, 6, bias=False) for key in KEYS})
            for _ in range(8)
        )
        layers.append(block)
    return sr.load(nn.ModuleDict({"layers": layers}), name="experts")


def shown(opened, detail):
    """Texts of the panel of a layer, and its squares."""
    opened.set(detail=detail)
    details = opened.page.locator(".sv-details")
    squares = details.locator(".sv-parts input")
    return details.inner_text(), [square.get_attribute("title") for square in squares.all()]


def sentences(kind, zeros, weights):
    """The names of squares, given the zeros of each part and its weights."""
    return [
        say("viewer.part_zeros", part=say(f"viewer.part_{kind}", number=number),
            share=percent(count / weights, space=" "),
            weights=f"{weights:,}".replace(",", "\u202f"))
        for number, count in enumerate(zeros)
    ]  # fmt: skip


def test_heads_are_chosen_by_mouse_and_keys(chromium, tmp_path):
    model = mixture("Mixtral", num_key_value_heads=2, num_attention_heads=4)
    queries = model.model.layers[1].self_attn.q_proj.weight
    with torch.no_grad():
        queries[4:8] = 0  # the second of four heads
        queries[0, :5] = 0
    study = sr.compare(sr.dense(sr.load(model)), patterns=True)
    with Opened(chromium, tmp_path, study, width=390) as opened:
        panel, names = shown(opened, "model.layers.1.self_attn.q_proj")
        squares = opened.page.locator("[role=radiogroup]").first.locator("input")
        assert squares.count() == 4
        heads = sentences("head", [5, 64, 0, 0], 64)
        assert names[:4] == heads
        heading = say("viewer.parts_head")
        assert say("viewer.parts_dead", parts=heading, numbers="1") in panel
        assert (
            say("viewer.parts_range", parts=heading, count=4, least="0.0 %", most="100.0 %")
            in panel
        )
        squares.nth(2).click()
        assert heads[2] in opened.page.locator(".sv-details").inner_text()
        opened.page.keyboard.press("ArrowRight")
        opened.page.keyboard.press("ArrowRight")
        focused = opened.page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert focused == heads[0]
        assert heads[0] in opened.page.locator(".sv-details").inner_text()
        checked = opened.page.locator(".sv-parts :checked")
        assert checked.count() == 1
        assert min(squares.first.bounding_box()[side] for side in ("width", "height")) >= 24
        assert violations(opened.page) == []
        # One name for the two heads of keys, which all four heads of queries share.
        _, names = shown(opened, "model.layers.1.self_attn.k_proj")
        assert names[:2] == sentences("kv_head", [0, 0], 64)
        assert opened.page.locator(".sv-parts :checked").count() == 0


@pytest.mark.parametrize("storage", ["fused", "modules"])
def test_experts_of_a_block_are_squares(storage, chromium, tmp_path):
    fused = storage == "fused"
    weights = sr.load(mixture("Mixtral"), name="Mixtral") if fused else experts()
    pruning = sr.global_magnitude(weights, 0.5)
    study = sr.compare(sr.masked(pruning), patterns=fused)
    zeros = np.zeros(8, dtype=int)
    for name in pruning.cuts:
        gone = ~pruning.mask(name)
        if fused and "layers.1.mlp.experts" in name:
            zeros += gone.sum(axis=(1, 2))
        elif match := re.match(r"layers\.1\.experts\.(\d)\.", name):
            zeros[int(match[1])] += gone.sum()
    near, others = ("model.layers.1.mlp.gate", "model.layers.0.mlp.experts") if fused else (
        "layers.1.experts.0.gate_proj", "layers.0.experts.0.gate_proj"
    )  # fmt: skip
    each = 3 * 16 * 24 if fused else 3 * 8 * 6
    wanted = sentences("expert", zeros, each)
    texts = {"parameters": f"{each:,}".replace(",", "\u202f"), "bytes": scaled(4 * each, "B", " ")}
    size = say("viewer.expert_size", base="dense", bits="32.00", **texts)
    used = say("viewer.experts_used", used=2, count=8)
    with Opened(chromium, tmp_path, study) as opened:
        assert shown(opened, others)[1] != wanted
        panel, names = shown(opened, near)
        assert names[-8:] == wanted
        assert (size in panel, used in panel) == (True, fused)
        beside = "model.layers.1.self_attn.q_proj" if fused else "layers.1.attn.q"
        assert say("viewer.parts_expert") + ":" not in shown(opened, beside)[0]
        shown(opened, near)
        opened.page.locator(".sv-parts input").last.click()
        assert wanted[7] in opened.page.locator(".sv-details").inner_text()
        if fused:
            assert (opened.state["detail"], opened.state["selection"]) == (near, [])
            return
        parts = [f"layers.1.experts.7.{key}_proj" for key in KEYS]
        assert opened.state["selection"] == parts
        opened.page.keyboard.press("ArrowLeft")
        assert opened.state["selection"] == [name.replace("7", "6") for name in parts]
        assert opened.page.evaluate("document.activeElement.checked")
        # Experts of their own follow the slider, within the slack of the level.
        opened.set(sparsity=0.8)
        assert len(shown(opened, near)[1]) == 8


def test_a_level_shows_no_heads_of_a_variant(chromium, tmp_path, mixtral):
    study = sr.compare(sr.dense(mixtral), sr.masked(sr.global_magnitude(mixtral, 0.5)))
    counted = sr.compare(sr.dense(mixtral), patterns=True)
    for value, word in ((study, "viewer.parts_uncounted"), (counted, None)):
        with Opened(chromium, tmp_path, value) as opened:
            opened.set(variant="Dense")
            panel, names = shown(opened, "model.layers.0.self_attn.q_proj")
            assert bool(names) == (word is None)
            assert (word is None) or say(word) in panel
            opened.set(sparsity=0.7)
            panel, names = shown(opened, "model.layers.0.self_attn.q_proj")
            assert names == []
            assert say("viewer.parts_level") in panel


@pytest.mark.parametrize(
    ("model", "layer", "kind"),
    [
        (
            lambda: transformers.GPT2LMHeadModel(
                transformers.GPT2Config(vocab_size=16, n_embd=16, n_layer=1, n_head=2)
            ),
            "transformer.h.0.attn.c_attn",
            "head_part",
        ),
        (lambda: mixture("Qwen3Moe"), "model.layers.0.self_attn.k_proj", "head"),
    ],
)
def test_parts_of_a_fused_matrix_are_no_heads(model, layer, kind, chromium, tmp_path):
    study = sr.compare(sr.dense(sr.load(model())), patterns=True)
    with Opened(chromium, tmp_path, study) as opened:
        panel, names = shown(opened, layer)
        assert say(f"viewer.parts_{kind}") in panel
        assert names[0].startswith(say(f"viewer.part_{kind}", number=0))
