"""The state that page and kernel share, with a model in place of the kernel's widget."""

import base64

import pytest

import sparsity_report as sr
from sparsity_report.viewer.embed import widget_module
from sparsity_report.viewer.study_payload import study_payload

# As the models of ipywidgets and marimo, it has a value before it says so.
SETUP = """async ([code, values]) => {
    const plain = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    const { default: { render } } = await import(url);
    const acts = {};
    let changed = {};
    const emit = (name, ...given) => (acts[name] ?? []).forEach((act) => act(...given));
    const receive = (given) => {
        const bytes = given.payload && { payload: plain(given.payload) };
        Object.assign(values, given, bytes);
        return () => Object.keys(given).forEach((name) => emit(`change:${name}`));
    };
    const model = {
        get: (name) => values[name],
        set: (name, value) => { changed[name] = value; receive({ [name]: value })(); },
        save_changes: () => {
            const { state: { changed: names, ...state } } = changed;
            sent.push(Object.fromEntries(names.map((name) => [name, state[name]])));
            changed = {};
        },
        on: (name, act) => (acts[name] ??= []).push(act),
        off: (name, act) => (acts[name] = acts[name].filter((one) => one !== act)),
        send: () => {},
    };
    const sent = [], events = [];
    // The kernel sends whole states.
    const of = ({ payload, ...state }) => ({
        state: { ...values.state, ...state, changed: undefined }, ...(payload && { payload }),
    });
    receive(values);
    Object.assign(globalThis, {
        sent,
        values,
        kernel: (given) => receive(of(given))(),
        early: (given) => events.push(receive(of(given))),
        late: () => events.splice(0).forEach((act) => act()),
        view: () => render({ model, el: document.body }),
        viewer: (place = 0) => document.querySelectorAll(".sparsity-viewer")[place].viewer,
        settle: () => new Promise((act) => setTimeout(act, 50)),
    });
    await view();
}"""


def packed(payload):
    return base64.b64encode(payload).decode()


@pytest.fixture
def page(chromium, demo_study):
    explorer = sr.explore(demo_study)
    values = {"key": explorer.key, "state": explorer.state}
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.evaluate(
        SETUP, [widget_module(), {**values, "payload": packed(study_payload(demo_study))}]
    )
    # The page chooses a layer to show in detail, which the kernel then knows.
    page.evaluate("viewer().store.rest(); settle()")
    page.evaluate("sent.length = 0")
    yield page
    context.close()
    assert complaints == []


def test_a_resting_page_takes_nothing_back(page):
    page.evaluate("early({ metric: 'flops_per_token', sparsity: 0.65, variant: 'at level' })")
    page.evaluate("viewer().store.rest()")
    assert page.evaluate("sent") == []
    page.evaluate("late(); settle()")
    state = page.evaluate("viewer().state")
    assert (state["metric"], state["sparsity"]) == ("flops_per_token", 0.65)
    assert page.evaluate("[values.state.metric, values.state.sparsity, sent]") == [
        "flops_per_token",
        0.65,
        [],
    ]


def test_changes_of_both_sides_meet(page):
    page.evaluate(
        """() => {
            viewer().set({ search: "fc1", sort: "module" });
            early({ metric: "flops_per_token", sort: "-module" });
            viewer().store.rest();
        }"""
    )
    # Of a trait that both have changed, the kernel gets the page's value, the later one.
    assert page.evaluate("sent") == [{"search": "fc1", "sort": "module"}]
    page.evaluate("late(); settle()")
    for place in ("viewer().state", "values.state"):
        shown = page.evaluate(f"[{place}.metric, {place}.search, {place}.sort]")
        assert shown == ["flops_per_token", "fc1", "module"]
    page.evaluate("viewer().store.rest()")
    assert len(page.evaluate("sent")) == 1


def test_refused_values_come_back(page):
    before = page.evaluate("values.state.against")
    page.evaluate("viewer().set({ against: 'CSR30' }); viewer().store.rest()")
    assert page.evaluate("sent") == [{"against": "CSR30"}]
    page.evaluate("against => { kernel({ against }); return settle(); }", before)
    page.evaluate("viewer().store.rest()")
    assert page.evaluate("[viewer().state.against, values.state.against]") == [before, before]
    assert len(page.evaluate("sent")) == 1


def test_another_value_of_the_kernel_replaces_that_of_the_page(page):
    page.evaluate("viewer().set({ sparsity: 0.5 }); viewer().store.rest()")
    assert page.evaluate("sent") == [{"sparsity": 0.5, "variant": "at level"}]
    page.evaluate("kernel({ sparsity: 0.51 }); settle()")
    page.evaluate("viewer().store.rest()")
    assert page.evaluate("[viewer().state.sparsity, values.state.sparsity]") == [0.51, 0.51]
    assert len(page.evaluate("sent")) == 1


def test_a_longer_study_shows_its_new_variant(page, demo, demo_study):
    pruning = sr.global_magnitude(demo, 0.57)
    longer = packed(study_payload(demo_study.with_variants(sr.csr(pruning))))
    page.evaluate(
        """async (payload) => {
            kernel({ payload });
            kernel({ variant: "CSR57", sparsity: 0.57 });
            // The page is still opening the payload.
            viewer().store.rest();
            await settle();
            viewer().store.rest();
        }""",
        longer,
    )
    page.wait_for_function("() => viewer().state.variant === 'CSR57'", timeout=3000)
    assert page.evaluate("[values.state.variant, values.state.sparsity, sent]") == [
        "CSR57",
        0.57,
        [],
    ]


def test_two_views_show_the_same(page):
    page.evaluate("view()")
    page.evaluate(
        """async () => {
            viewer(1).set({ metric: "flops_per_token" });
            viewer().set({ search: "fc2" });
            for (const place of [1, 0, 1, 0]) viewer(place).store.rest();
            await settle();
            for (const place of [1, 0]) viewer(place).store.rest();
            await settle();
        }"""
    )
    for place in ("viewer().state", "viewer(1).state", "values.state"):
        shown = page.evaluate(f"[{place}.metric, {place}.search]")
        assert shown == ["flops_per_token", "fc2"]
    assert page.evaluate("sent") == [{"metric": "flops_per_token"}, {"search": "fc2"}]
