"""A budget comes to a level, or is refused with what can be reached."""

from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize
import torch
import transformers
from budgets import BUDGETS, NO_BUDGETS

import sparsity_report as sr
from sparsity_report.study.budget import read_budget


@pytest.fixture(scope="module")
def study(demo):
    masked = [sr.masked(sr.global_magnitude(demo, level)) for level in (0.3, 0.9)]
    return sr.compare(sr.dense(demo), *masked)


@pytest.mark.parametrize("text", BUDGETS)
def test_common_spellings_of_budgets_are_read(text):
    assert read_budget(text) == BUDGETS[text]


@pytest.mark.parametrize("text", NO_BUDGETS)
def test_invalid_budgets_are_refused_in_one_line(text):
    with pytest.raises(sr.SparsityReportError, match="is not a budget; write one such as") as error:
        read_budget(text)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("budget", ["2 MB", "3000 kB", "0.8 × bytes", "0.5 × FLOPs"])
def test_the_level_is_the_first_whose_variant_fits(demo, study, budget):
    """Against CSR variants that are really pruned at the level, and at the one before."""
    solved, (column, limit, base) = sr.level_within(study, budget), read_budget(budget)

    def cost(level):
        totals = sr.compare(sr.dense(demo), sr.csr(sr.global_magnitude(demo, level))).totals
        dense, sparse = totals[column]
        return sparse if base is None else sparse / dense

    assert cost(solved.sparsity) == solved.value <= limit
    assert cost(round(solved.sparsity - 0.01, 2)) > limit


def mixture_of(spread):
    """Magnitudes in one bucket, those of the experts below the others."""
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=1,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            low = 1.0 if "experts" in name else 1.002
            parameter.copy_(low + spread * torch.rand(parameter.shape))
    return sr.load(model, name="mixture")


def exact_flops(weights, layers, levels):
    """Yield the FLOPs per token as CSR at every level, by a stable sort of all magnitudes."""
    layers = layers.set_index("module_name")
    owners = {p.name: m.name for m in weights.modules for p in m.parameters}
    tensors = [weights.tensor(p.name).abs().flatten().numpy() for p in weights.prunable]
    names = np.repeat([owners[p.name] for p in weights.prunable], [t.size for t in tensors])
    ascending = names[np.argsort(np.concatenate(tensors), kind="stable")]
    rest = int(layers.loc[~layers["prunable"], "flops_per_token"].sum())
    for level in levels:
        left = np.unique(ascending[round(level * ascending.size) :], return_counts=True)
        products = (
            2 * int(n) * Fraction(layers["uses"][name]) for name, n in zip(*left, strict=True)
        )
        yield rest + sum(map(round, products))


@pytest.mark.parametrize("spread", [0.001, 0.0])
def test_the_level_is_the_lowest_within_the_budget(spread, tmp_path):
    """By brute force over all levels, for magnitudes of one bucket, spread out or tied."""
    weights = mixture_of(spread)
    study = sr.compare(sr.dense(weights))
    saved = sr.read_study(study.save(tmp_path / "study.json"))
    levels = study.by_policy["global_magnitude"].sparsities
    costs = [*exact_flops(weights, study.layers, levels)]
    assert costs == sorted(costs, reverse=True)
    for place in range(3, 99, 12):
        for limit in (costs[place], (costs[place] + costs[place + 1]) // 2):
            first = next(k for k, cost in enumerate(costs) if cost <= limit)
            solved = sr.level_within(study, f"{limit} FLOPs")
            assert solved == (levels[first], costs[first], costs[first], "csr")
            # Without weights, the level is one that is surely within the budget.
            bound = sr.level_within(saved, f"{limit} FLOPs")
            assert costs[levels.index(bound.sparsity)] <= bound.most <= limit
    with pytest.raises(sr.SparsityReportError, match=f"at most {costs[-1]:,}, at 99%, and dense"):
        sr.level_within(study, f"{costs[-1] - 1} FLOPs")


def test_the_most_that_a_level_may_take_is_that_of_the_worst_distribution():
    """Linear programming over the zeros of each module, whose sum is known."""
    mixture = mixture_of(0.001)
    study = sr.compare(sr.dense(mixture))
    levels, layers = study.by_policy["global_magnitude"], study.layers
    frame = sr.sweep(mixture, levels.sparsities)
    uses = layers[layers["prunable"]].set_index("module_name")["uses"]
    prunable = frame[frame["module_name"].isin(uses.index)]
    for quantity in ("flops_per_token", "stored_bytes"):
        most = levels.at_most(quantity) - levels.total(quantity)
        for place in (10, 50, 90):
            rows = prunable[np.isclose(prunable["sparsity"], levels.sparsities[place])]
            slack = rows["uncertainty"].to_numpy(dtype=float)
            cost = np.full(len(rows), 8.0)
            if quantity == "flops_per_token":
                cost = 2 * uses[rows["module_name"]].to_numpy(dtype=float)
            worst = scipy.optimize.linprog(
                -cost, A_eq=np.ones((1, len(cost))), b_eq=[0], bounds=[(-s, s) for s in slack]
            )
            assert 0 <= most[place] + worst.fun <= 2 * len(cost) + 1
            assert (-worst.fun > 1000) == (quantity == "flops_per_token")


def test_a_model_that_fits_need_not_be_pruned(study):
    solved = sr.level_within(study, "1 GB")
    dense = study.totals["stored_bytes"].iloc[0]
    assert solved == (0.0, dense, dense, "dense")


@pytest.mark.parametrize("budget", ["1 kB", "0.001 × FLOPs"])
def test_out_of_reach_says_what_is_in_reach(study, budget):
    with pytest.raises(sr.SparsityReportError, match=r"out of reach; .* at 99%, and dense"):
        sr.level_within(study, budget)
