"""Choices of experts by several scores at several levels, compared on one text."""

import numpy as np
import pytest
import scipy.stats
import smaller_mixtures
import torch

import sparsity_report as sr
from sparsity_report.cli.options import Choice
from sparsity_report.cli.policy_grid import check_experts, chosen_experts
from sparsity_report.findings.first_screen import first_screen
from sparsity_report.findings.study_findings import topics
from sparsity_report.report.tables.method_tables import results
from sparsity_report.study.derived.heads_experts import overlap_note
from sparsity_report.words.number_format import perplexity


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mixture")


@pytest.fixture(scope="module")
def ids(folder):
    """Tokens that the model samples, so that it predicts them better than uniform guessing."""
    model = smaller_mixtures.saved(folder, "Mixtral")
    torch.manual_seed(0)
    start, options = torch.ones(40, 1, dtype=torch.int64), {"do_sample": True, "top_k": 0}
    tokens = model.generate(start, max_new_tokens=63, eos_token_id=None, **options)
    return tokens.reshape(-1)


@pytest.fixture(scope="module")
def lists(folder, ids):
    """The lists of the command, with one calibration on token ids."""
    weights, calls, calibrate = sr.load(folder, name="mix"), [], sr.calibrate

    def once(weights, text):
        calls.append(text)
        return calibrate(weights, ids[:640], window=64)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sr, "calibrate", once)
        kept = chosen_experts(weights, Choice(keep_experts="75%,50%"), seeds=3)
    assert calls == [None]
    return kept


@pytest.fixture(scope="module")
def study(lists, ids):
    variants = [sr.dense(lists[0].weights), *map(sr.without_experts, lists)]
    scores = sr.perplexity(variants, ids[640:], window=64, stride=64)
    return sr.compare(*variants).with_measured(quality=scores)


def test_every_score_has_a_list_at_every_level(lists, study):
    names = ["Dense"]
    for kept in (6, 4):
        names += [f"{name}{kept}of8" for name in ("REAP", "Frequency", "Magnitude")]
        names += [f"Random{kept}of8{seed}" for seed in ("Seed0", "Seed1", "Seed2")]
    assert study.variants["variant"].tolist() == names
    assert study.variants["expert_score"].tolist()[1:] == [kept.method for kept in lists]
    assert study.identity["seeds"] == [0, 1, 2]


def test_choices_of_one_number_are_compared_and_none_wins_unseparated(study, tmp_path):
    losses = study.quality.set_index("variant")["nll"]
    prints = study.variants.set_index("variant")["fingerprint"]
    for each in (study, sr.read_study(study.save(tmp_path / "study.json"))):
        pairs = each.facts.paired(each.quality.iloc[0])
        assert len(pairs.rivals) == 2
        for names, label in zip(pairs.rivals, ("6of8", "4of8"), strict=True):
            assert {*prints[names]} == {*prints.filter(like=label)}
            lowest = losses[names].idxmin()
            others = [name for name in names if name != lowest]
            apart = {name for name in others if pairs.get(name, lowest).is_apart}
            assert set(pairs.best(names)) == (set(names) - apart if apart else set())


def test_the_first_screen_and_the_table_name_scores_and_numbers(study):
    kicker = first_screen(study)["kicker"][-1]
    assert kicker.startswith("8 and 12 of 16 experts kept by REAP saliency, router frequency, mag")
    table = results(study)
    assert [body.title for body in table.bodies][1:] == ["12 of 16 experts", "8 of 16 experts"]
    assert [len(body.rows) for body in table.bodies] == [1, 6, 6]
    values = study.quality.set_index("variant")["perplexity"].filter(like="Random6of8")
    (line,) = [s for s in topics(study)["rivals"] if s.startswith("With 12") and "3 random" in s]
    for end in (values.min(), values.max()):
        assert perplexity((end, 64), space=" ") in line


def test_choices_beside_another_model_are_not_ranked(study):
    """A row of variants does not say which of two models it was made from."""
    other = sr.dense(smaller_mixtures.mixture("Olmoe"), name="Other")
    both = study.with_variants(other)
    assert len(study.facts.expert_lists) == 2
    assert (both.facts.expert_lists, both.facts.paired(study.quality.iloc[0]).rivals) == ([], [])


def test_the_overlap_of_two_texts_has_an_interval_over_modules():
    weights = sr.load(smaller_mixtures.mixture("Mixtral", num_hidden_layers=6), name="mix")
    one = sr.KeptExperts(weights, {n: [0, 1, 2, 3] for n in range(6)}, "frequency")
    both = [4, 3, 4, 2, 4, 3]
    other = {n: [*range(count), *range(4, 8 - count)] for n, count in enumerate(both)}
    note = overlap_note(one, sr.KeptExperts(weights, other, "frequency"))
    error = np.std(np.array(both) / 4, ddof=1) / np.sqrt(6)
    reach = scipy.stats.t.ppf(0.975, 5) * error
    ends = (f"{100 * end:.1f}" for end in (20 / 24 - reach, min(1, 20 / 24 + reach)))
    assert "it keeps 20 on" in note
    assert all(end in note.partition("modules: ")[2] for end in ends)
    # All modules agree, so their spread is unknown.
    assert "interval" not in overlap_note(one, one)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"keep_experts": "6,best"}, "neither a number, nor a share"),
     ({"keep_experts": "6", "score": ["random"], "calibration": ["a"]}, "has no effect"),
     ({"keep_experts": "6", "calibration": ["a", "b", "c"]},
      "--calibration has 3 values; give at most 2")],
)  # fmt: skip
def test_contradictory_options_are_one_line(options, message):
    with pytest.raises(sr.SparsityReportError, match=message):
        check_experts(Choice(**options), [])
