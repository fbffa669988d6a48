"""No text of the viewer is cut, and no labels of the map touch, from a phone to a wide screen."""

import pytest
import torch
from helpers import study_of
from pairs import gone, two_policies
from transformers import MixtralConfig, MixtralForCausalLM
from viewer_pages import Page

import sparsity_report as sr
from sparsity_report.viewer.study_payload import study_payload

WIDTHS = (390, 610, 800, 1100, 1440)
# Cut on purpose, with the whole text as a title: names of layers in the table, and the name of a
# metric that is too long for the legend, which the menu of metrics shows.
CUT = """() => {
    const root = document.querySelector(".sparsity-viewer");
    const cut = [];
    const width = (text, of) => {
        const span = document.createElement("span");
        span.style.cssText = "position: absolute; white-space: pre; visibility: hidden";
        span.style.font = getComputedStyle(of).font;
        span.textContent = text;
        document.body.append(span);
        const wide = span.getBoundingClientRect().width;
        span.remove();
        return wide;
    };
    const edge = root.getBoundingClientRect();
    for (const one of root.querySelectorAll("*")) {
        const box = one.getBoundingClientRect();
        const isSeen = one.checkVisibility({ visibilityProperty: true });
        if (!isSeen || one.closest(".sv-hidden")) continue;
        const inTable = one.closest(".sv-table");
        if (box.width && !inTable && (box.left < edge.left || box.right > edge.right + 0.5)) {
            cut.push(`beyond the viewer: ${one.tagName}.${one.className.baseVal ?? one.className}`);
        }
        const view = inTable?.getBoundingClientRect();
        if (one.matches("[role=columnheader], [role=gridcell]")
            && (box.left < view.right - 1 && box.right > view.right + 1
                || box.top < view.bottom - 1 && box.bottom > view.bottom + 1)) {
            cut.push(`cell: ${one.textContent}`);
        } else if (one.matches(".sv-rows")) {
            const isShown = getComputedStyle(one, "::after").opacity > 0;
            if (isShown !== (inTable.scrollWidth > inTable.clientWidth)) cut.push("shadow");
        }
        const style = getComputedStyle(one);
        const [left, right] = [style.paddingLeft, style.paddingRight].map(parseFloat);
        const room = one.clientWidth - left - right;
        if (one.matches("select")) {
            // The arrow takes 15 px beside the text.
            const text = one.selectedOptions[0]?.textContent ?? "";
            if (width(text, one) + 15 > room + 2) cut.push(`menu: ${text}`);
        } else if (one.matches("input:not([type=range])")) {
            const text = one.value || one.placeholder;
            if (width(text, one) > room + 1) cut.push(`field: ${text}`);
        } else if (one.tagName === "text") {
            const svg = one.closest("svg").getBoundingClientRect();
            const isShort = one.textContent.endsWith("…") && !one.querySelector("title");
            if (isShort || box.width && (box.left < svg.left - 1 || box.right > svg.right + 1
                    || box.top < svg.top - 1 || box.bottom > svg.bottom + 1)) {
                cut.push(`picture: ${one.textContent}`);
            }
        } else if ([...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
            && !(inTable && one.matches("[role=rowheader][title]"))) {
            if (one.scrollWidth > one.clientWidth + 1 && style.display !== "inline") {
                cut.push(`text: ${one.textContent}`);
            }
        }
    }
    for (const svg of root.querySelectorAll(".sv-map svg, .sv-legend")) {
        const texts = [...svg.querySelectorAll("text")].map((text) =>
            [text.textContent, text.getBoundingClientRect()]);
        texts.forEach(([one, a], k) => texts.slice(k + 1).forEach(([other, b]) => {
            if (a.left < b.right + 2 && b.left < a.right + 2 && a.top < b.bottom - 2
                && b.top < a.bottom - 2) cut.push(`touching: ${one} ${other}`);
        }));
    }
    return [...new Set(cut)];
}"""


def of_demo():
    return study_of(sr.load(), 0.5, patterns=True)


def of_pair():
    rows = [gone("expert", "model.experts", index, 4, 0, weights=9) for index in (1, 2)]
    return two_policies(sr.load(), rows)


def of_mixture():
    torch.manual_seed(1)
    config = MixtralConfig(
        vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=30,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=8, num_experts_per_tok=2,
    )  # fmt: skip
    weights = sr.load(MixtralForCausalLM(config), name="mixture")
    return sr.compare(sr.dense(weights), sr.csr(sr.global_magnitude(weights, 0.5)))


class Shown(Page):
    """A page with a viewer alone, of a width."""

    def cut(self):
        return self.page.evaluate(CUT)


@pytest.mark.parametrize("made", [of_demo, of_pair, of_mixture])
def test_no_text_is_cut(chromium, tmp_path, made):
    payload, found = study_payload(made()), {}
    for width in WIDTHS:
        with Shown(chromium, tmp_path, payload, width) as shown:
            views = {"first": shown.cut()}
            for tab in shown.page.locator("[role=tab]").all():
                tab.click()
                views[tab.inner_text()] = shown.cut()
            for place in (0, "viewer.map.plan.marks.length - 1"):
                shown.run(f"viewer.map.point({place})")
                assert shown.page.locator(".sv-tip").inner_text()
                views[f"tip {place}"] = shown.cut()
            for metric in shown.run("viewer.figures.metrics.map(({ key }) => key)"):
                shown.set(metric=metric)
                views[metric] = shown.cut()
            if not shown.run("viewer.figures.isPair"):
                shown.set(sparsity=0.9, metric="difference", layout="bitmask")
                views["level"] = shown.cut()
            found |= {(width, name): cut for name, cut in views.items() if cut}
    assert found == {}


def test_cut_text_is_found(chromium, tmp_path):
    with Shown(chromium, tmp_path, study_payload(of_demo()), 390) as shown:
        narrow = """.sparsity-viewer .sv-tabs button { width: 20px; overflow: hidden }
            .sparsity-viewer .sv-bar .sv-layout { min-width: 0; max-width: 50px }"""
        shown.page.add_style_tag(content=narrow)
        shown.page.evaluate(
            "document.querySelectorAll('.sv-map text').forEach((text) => {"
            " text.textContent = text.textContent.repeat(30); })"
        )
        kinds = {text.split(":")[0] for text in shown.cut()}
        assert {"text", "menu", "touching", "picture"} <= kinds
