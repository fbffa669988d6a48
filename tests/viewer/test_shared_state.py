"""The state that page and kernel share, with a model in place of the kernel's widget."""

import base64
from dataclasses import replace

import pytest

import sparsity_report as sr
from sparsity_report.study.sweep import with_level
from sparsity_report.viewer.embed import widget_module
from sparsity_report.viewer.study_payload import study_payload
from sparsity_report.words.sentences import say

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
            const { state: { changed: names, id, ...state } } = changed;
            Object.assign(last, { id });
            sent.push(Object.fromEntries(names.map((name) => [name, state[name]])));
            changed = {};
        },
        on: (name, act) => (acts[name] ??= []).push(act),
        off: (name, act) => (acts[name] = acts[name].filter((one) => one !== act)),
        send: (message) => asked.push(message),
        widget_manager: { context: { sessionContext: {
            session: { kernel: { status: "idle" } },
            statusChanged: { connect: (act) => follows.push(act), disconnect: () => {} },
            kernelChanged: { connect: () => {}, disconnect: () => {} },
        } } },
    };
    const sent = [], events = [], last = {}, asked = [], follows = [];
    // The kernel sends whole states, with the last change of the page that it has seen.
    const of = ({ payload, ...state }) => ({
        state: { ...values.state, answered: last.id, id: undefined, ...state,
            changed: undefined },
        ...(payload && { payload }),
    });
    receive(values);
    Object.assign(globalThis, {
        sent,
        asked,
        values,
        kernelSays: (message) => emit("msg:custom", message, []),
        lose: (status) => follows.forEach((act) => act(null, status)),
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
        "flops_per_token", 0.65, [],
    ]  # fmt: skip


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
    (sent,) = page.evaluate("sent")
    assert sent["against"] == "CSR30"
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
        "CSR57", 0.57, [],
    ]  # fmt: skip


def with_517(study):
    """The payload with 51.7 %, which the study lacks."""
    levels = with_level(study.levels, study.weights, 0.517)
    return packed(study_payload(replace(study, levels=levels)))


def test_a_level_waits_for_its_counts(page, demo_study):
    seen = page.evaluate(
        """async (payload) => {
            const seen = [];
            kernel({ payload, variant: "at level", sparsity: 0.517 });
            for (let k = 0; k < 60; k += 1) {
                await new Promise((act) => setTimeout(act, 5));
                seen.push(document.querySelector(".sv-sentence").innerText);
            }
            return seen;
        }""",
        with_517(demo_study),
    )
    shown = {text for text in seen if "51.7 %" in text.replace("\u202f", " ")}
    (one,) = shown
    assert one.replace("\u202f", " ").startswith("Global magnitude at 51.7 %: 51.7 %")


def test_a_later_action_wins_over_a_typed_level(page, demo_study):
    """The level is shown when it is counted, unless something else was done."""
    answer = """async (payload) => {
        kernel({ payload });
        kernelSays({ id: asked.at(-1).id, type: "said", text: "counted" });
        for (const _ of Array(6)) await settle();
        return viewer().state.sparsity;
    }"""
    longer = with_517(demo_study)
    for act, meanwhile, final in [
        ("viewer().set({ sparsity: 0.75 })", 0.75, 0.75),
        ("null", 0.3, 0.517),
    ]:
        page.evaluate(
            "payload => { kernel({ payload, sparsity: 0.3 }); return settle(); }",
            packed(study_payload(demo_study)),
        )
        page.wait_for_timeout(200)
        page.locator(".sv-level").fill("51.7")
        page.locator(".sv-level").press("Enter")
        assert page.evaluate("asked.at(-1).level") == {
            "policy": "global_magnitude", "sparsity": 0.517,
        }  # fmt: skip
        page.evaluate(act)
        assert page.evaluate("viewer().state.sparsity") == meanwhile
        assert page.evaluate(answer, longer) == final
    # A refusal takes the place of the answer.
    assert page.locator(".sv-notice").inner_text() == "counted"
    page.locator(".sv-level").fill("150")
    page.locator(".sv-level").press("Enter")
    assert page.locator(".sv-notice").inner_text().startswith("“150” is not a level")
    page.locator(".sv-level").press("Escape")
    assert page.locator(".sv-notice").inner_text() == ""


def test_rows_of_a_pair_are_copied(page, demo):
    pair = sr.compare_checkpoints(demo, sr.global_magnitude(demo, sparsity=0.3))
    page.evaluate(
        "payload => { kernel({ payload }); return settle(); }", packed(study_payload(pair))
    )
    heads, *rows = page.evaluate("viewer().tools.rows('\\t')[0]").split("\r\n")
    assert heads.split("\t")[:2] == ["module_name", "moved"]
    assert len(rows) == int(pair.matches["prunable"].sum())


def test_a_page_that_goes_shares_its_last_change(page):
    page.evaluate("viewer().set({ search: 'fc1' }); dispatchEvent(new Event('pagehide'))")
    assert page.evaluate("sent") == [{"search": "fc1"}]


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


def test_a_state_from_before_a_change_takes_nothing_back(page):
    before = page.evaluate("({ ...values.state })")
    page.evaluate("viewer().set({ search: 'fc1' }); viewer().store.rest()")
    # The kernel was busy: what it sends now was made before it read the search.
    early = "state => { kernel({ ...state, id: undefined, answered: '' }); return settle(); }"
    page.evaluate(early, before)
    assert page.evaluate("viewer().state.search") == "fc1"
    page.evaluate("kernel({ search: 'fc2' }); settle()")
    assert page.evaluate("viewer().state.search") == "fc2"


def test_steps_are_those_of_page_kernel_and_other_views(page, demo, demo_study):
    page.evaluate("view()")
    added = sr.csr(sr.global_magnitude(demo, 0.57))
    longer = packed(study_payload(demo_study.with_variants(added)))
    shown = "[viewer().state.metric, viewer().state.search, viewer().state.variant]"
    seen = [page.evaluate(shown)]
    steps = [
        "viewer().set({ sparsity: 0.57 }), rest()",
        "kernel({ metric: 'flops_per_token' }), settle().then(rest)",
        "viewer(1).set({ search: 'fc1' }), rest(), settle().then(rest)",
        "kernel({ payload, variant: 'CSR57' }), settle().then(settle).then(rest)",
    ]
    rest = "const rest = () => [0, 1].forEach((k) => viewer(k).store.rest())"
    for step in steps:
        page.evaluate(f"async (payload) => {{ {rest}; await ({step}); }}", longer)
        page.wait_for_timeout(100)
        seen.append(page.evaluate(shown))
    assert len({tuple(each) for each in seen}) == len(steps) + 1
    for place, want in [(0, 3), (1, 2), (0, 1), (1, 0), (0, 1), (1, 2), (0, 3), (1, 4)]:
        by = -1 if want < page.evaluate("viewer().store.history.at") else 1
        page.evaluate(f"{{ {rest}; viewer({place}).store.go({by}); rest(); settle().then(rest); }}")
        page.wait_for_timeout(100)
        assert page.evaluate(shown) == seen[want]
        assert page.evaluate(shown.replace("viewer()", "viewer(1)")) == seen[want]
    assert page.evaluate("viewer().store.history.steps.length") == len(seen)


def test_notices_go_with_their_cause(page):
    notice = "document.querySelector('.sv-notice').innerText"
    page.evaluate("viewer().tools.tell('about the level', ['sparsity'])")
    page.evaluate("viewer().set({ search: 'fc1' })")
    assert page.evaluate(notice) == "about the level"
    page.evaluate("viewer().set({ sparsity: 0.6 })")
    assert page.evaluate(notice) == ""
    page.evaluate("void viewer().ask({ type: 'add' })")
    page.evaluate("viewer().set({ search: 'fc2' }); viewer().tools.tell('a newer one')")
    assert page.evaluate(notice).splitlines() == ["a newer one", say("viewer.waiting")]
    page.evaluate("void viewer().ask({ type: 'level' })")
    first, second = page.evaluate("asked.flatMap((one) => one.type === 'inner' ? [] : [one.id])")
    answer = "id => { kernelSays({ id, type: 'said', text: 'answer ' + id }); return settle(); }"
    page.evaluate(answer, first)
    assert "Waiting" in page.evaluate(notice)
    page.evaluate(answer, second)
    assert page.evaluate(notice).splitlines() == ["a newer one", f"answer {second}"]
    page.evaluate("viewer().set({ search: '' })")
    assert page.evaluate(notice) == ""


def test_a_viewer_goes_on_without_its_kernel(page):
    page.evaluate("viewer().set({ sparsity: 0.6, panel: 'costs' })")
    page.evaluate("lose('busy'); settle()")
    assert page.evaluate("viewer().kernel !== null")
    page.evaluate("window.pending = viewer().ask({ type: 'add' }); lose('dead'); settle()")
    assert page.evaluate("pending.then(({ type }) => type)") == "error"
    assert "stopped" in page.evaluate("document.querySelector('.sv-notice').innerText")
    assert page.locator(".sv-add").is_disabled()
    assert "needs a kernel" in page.locator(".sv-add").text_content()
    assert page.evaluate("viewer().store.state.panel") == "costs"
    assert page.evaluate("viewer().state.sparsity") == 0.6
    page.evaluate("sent.length = 0; viewer().store.go(-1); viewer().store.rest()")
    assert page.evaluate("viewer().state.variant") == "CSR30"
    assert page.evaluate("sent") == []
