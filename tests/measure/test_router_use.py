"""Router use against experts computed from their matrices, for six architectures."""

from contextlib import nullcontext
from functools import partial

import pandas as pd
import pytest
import torch
from mixtures import MIXTURES, mixture
from torch.nn import functional
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

import sparsity_report as sr
from sparsity_report.measure.calibration import RouterUse
from sparsity_report.weights.anatomy.parameter_places import locate, walk

IDS = torch.arange(3 * 16) * 7 % 61


def experts_of(model):
    return {name: m for name, m in model.named_modules() if type(m).__name__.endswith("Experts")}


def router_of(model, name):
    block = model.get_submodule(name.rpartition(".")[0])
    return block.router if hasattr(block, "router") else block.gate


def swiglu(stack, expert, x):
    gate, up = functional.linear(x, stack.gate_up_proj[expert]).chunk(2, dim=-1)
    return functional.linear(functional.silu(gate) * up, stack.down_proj[expert])


def clamped(stack, expert, x):
    """The expert of gpt-oss: interleaved, with biases."""
    both = x @ stack.gate_up_proj[expert] + stack.gate_up_proj_bias[expert]
    gate, up = both[:, 0::2].clamp(max=7.0), both[:, 1::2].clamp(-7.0, 7.0)
    inner = (up + 1) * gate * torch.sigmoid(1.702 * gate)
    return inner @ stack.down_proj[expert] + stack.down_proj_bias[expert]


def keep(seen, key, _, args, out=None):
    seen[key] = [each.clone() for each in out or args]


def expected(model, ids, window):
    """Tokens, gates, norms and saliency of each expert, with hooks on routers."""
    formula = clamped if type(model).__name__.startswith("GptOss") else swiglu
    rows = {}
    for name, stack in experts_of(model).items():
        seen = {}
        handles = [
            router_of(model, name).register_forward_hook(partial(keep, seen, "out")),
            stack.register_forward_pre_hook(partial(keep, seen, "x")),
        ]
        for start in range(0, len(ids), window):
            with torch.no_grad():
                model(input_ids=ids[None, start : start + window], use_cache=False)
                _, gates, chosen = seen["out"]
                for expert in range(8):
                    row = rows.setdefault((name, expert), [0, 0.0, 0.0, 0.0])
                    for token, slot in (chosen == expert).nonzero().tolist():
                        output = formula(stack, expert, seen["x"][0][token : token + 1])
                        gate, norm = float(gates[token, slot]), float(output.norm())
                        for at, each in enumerate((1, gate, norm, gate * norm)):
                            row[at] += each
        for handle in handles:
            handle.remove()
    return rows


@pytest.mark.parametrize("kind", MIXTURES)
def test_use_is_that_of_the_experts_computed_from_their_matrices(kind):
    model = mixture(kind).double()
    model.set_experts_implementation("eager")  # the other kernels lack float64
    weights = sr.load(model)
    use = sr.calibrate(weights, IDS, window=16).experts
    rows = expected(model, IDS, 16)
    assert list(zip(use["module_name"], use["expert"], strict=True)) == list(rows)
    assert use["block"].tolist() == [0] * 8 + [1] * 8
    for found, (tokens, mass, norms, saliency) in zip(use.itertuples(), rows.values(), strict=True):
        assert found.tokens == tokens
        assert found.gate_mass == pytest.approx(mass, rel=1e-12)
        if tokens:
            assert found.output_norm == pytest.approx(norms / tokens, rel=1e-12)
            assert found.saliency == pytest.approx(saliency / tokens, rel=1e-12)
        else:
            assert pd.isna(found.output_norm)
            assert pd.isna(found.saliency)
    assert use.groupby("module_name")["tokens"].sum().tolist() == [2 * len(IDS)] * 2


def test_the_output_of_the_model_is_the_same():
    model = mixture("DeepseekV3")
    weights = sr.load(model)
    with torch.no_grad():
        before = model(IDS[None, :16], use_cache=False).logits
        use = RouterUse(weights, locate(walk(model)), nullcontext)
        assert torch.equal(model(IDS[None, :16], use_cache=False).logits, before)
    assert use.frame()["tokens"].sum() == 2 * 2 * 16


def test_inputs_are_those_without_the_second_run_of_the_experts():
    weights = sr.load(mixture("Mixtral"))
    calibration = sr.calibrate(weights, IDS, window=16)
    use = calibration.experts.groupby("module_name")["tokens"].agg(tuple)
    for name, tokens in use.items():
        assert calibration.tokens[f"{name}.gate_up_proj"] == tokens
        assert calibration.tokens[f"{name}.down_proj"] == tokens


def test_an_expert_without_tokens_is_no_error_of_calibrate():
    weights = sr.load(mixture("Mixtral"), name="mix")
    calibration = sr.calibrate(weights, IDS[:1], window=1)
    use = calibration.experts
    assert use["tokens"].tolist().count(0) == 12
    assert use["tokens"].sum() == 4
    idle = use[use["tokens"] == 0]
    assert idle["gate_mass"].eq(0).all()
    assert idle[["output_norm", "saliency"]].isna().all(axis=None)
    assert use[use["tokens"] > 0].notna().all(axis=None)
    for prune in (sr.wanda, sr.owl):
        with pytest.raises(
            sr.SparsityReportError, match=r"^mix: no token .* expert \d of .* \(6 of 8 got none"
        ):
            prune(weights, 0.5, calibration)


def test_a_model_without_experts_has_no_rows():
    use = sr.calibrate(sr.load(), windows=1).experts
    assert use.empty
    assert list(use) == [
        "module_name", "block", "expert", "tokens", "gate_mass", "output_norm", "saliency",
    ]  # fmt: skip


class SquaredExperts(MixtralExperts):
    """Experts that are called alike, but whose output is no sum of outputs times gates."""

    def forward(self, hidden_states, top_k_index, top_k_weights):
        return super().forward(hidden_states, top_k_index, top_k_weights**2)


def test_experts_that_route_in_another_way_have_no_rows():
    model = mixture("Mixtral")
    model.model.layers[1].mlp.experts.__class__ = SquaredExperts
    use = sr.calibrate(sr.load(model), IDS, window=16).experts
    assert set(use["module_name"]) == {"model.layers.0.mlp.experts"}


def test_outputs_beyond_numbers_are_one_line():
    model = mixture("Mixtral")
    with torch.no_grad():
        model.model.layers[1].mlp.experts.down_proj.mul_(1e38)
    with pytest.raises(sr.SparsityReportError, match=r"layers\.1\.mlp\.experts hold NaN or inf"):
        sr.calibrate(sr.load(model), IDS, window=16)
