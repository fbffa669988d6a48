"""Zeros of models with adapters of PEFT: counts of the base, and zeros that merging fills."""

import copy

import peft
import pytest
import torch
from two_processes import gpt2

import sparsity_report as sr

# PEFT reads an attribute that transformers deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def moved(model):
    """Return a model whose adapters are not zero; some of their rows are."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter)
            if "lora_B" in name:
                parameter.data[:: 3 if "other" in name else 2] = 0
    return model


ADAPTERS = {
    "lora": {"r": 2, "lora_alpha": 8},
    "dora": {"r": 2, "use_dora": True},
    "rslora": {"r": 3, "use_rslora": True, "lora_bias": True},
}


def adapted(half=torch.float32, targets=("c_attn", "mlp.c_proj"), **settings):
    """Return a pruned model of inputs-first matrices with an adapter."""
    torch.manual_seed(0)
    pruned = sr.masked(sr.global_magnitude(sr.load(gpt2()), 0.5)).module().to(half)
    config = peft.LoraConfig(target_modules=[*targets], fan_in_fan_out=True, **settings)
    return moved(peft.get_peft_model(pruned, config))


def merge_fills(model):
    """Return by module the zeros that merging a copy fills."""
    before = {n.replace(".base_layer", ""): p for n, p in model.get_base_model().named_parameters()}
    after = copy.deepcopy(model).merge_and_unload().named_parameters()
    changed = {n: int(((before[n] == 0) & (p != 0)).sum()) for n, p in after}
    return {n.removesuffix(".weight"): k for n, k in changed.items() if n.endswith("weight")}


def check_filled(model):
    """Hold the filled zeros of a tracked model to those of a merged copy."""
    history, expected = sr.track(model).history, merge_fills(model)
    filled = history.dropna(subset="filled").set_index("module_name")["filled"]
    assert len(filled) == 4
    assert (filled > 0).all()
    assert filled.to_dict() == {name: expected[name] for name in filled.index}
    assert not history["module_name"].str.contains("lora_").loc[history["kept"].notna()].any()


@pytest.mark.parametrize("kind", ADAPTERS)
def test_filled_zeros_are_those_of_a_merge(kind):
    check_filled(adapted(**ADAPTERS[kind]))


def test_only_active_adapters_fill():
    model = adapted(**ADAPTERS["lora"])
    other = peft.LoraConfig(target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True, r=4)
    model.add_adapter("other", other)
    alone = sr.track(model).totals["filled"].item()
    moved(model).set_adapter("other")
    check_filled(model)
    model.base_model.set_adapter(["default", "other"])
    check_filled(model)
    assert sr.track(model).totals["filled"].item() > alone


def test_rounding_of_a_merge_in_half_precision():
    model = adapted(torch.float16, **ADAPTERS["lora"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1e-4 if "lora_B" in name else 1)
    check_filled(model)


def test_base_shows_what_was_merged():
    model = adapted(**ADAPTERS["lora"])
    tracker = sr.track(model, every=1)
    expected = tracker.totals["filled"].item()
    assert "Merging the adapter would fill" in repr(tracker)
    model.merge_adapter()
    tracker.step()
    last = tracker.history[tracker.history["step"] == 1]
    assert last["revived"].sum() == expected
    assert last["filled"].isna().all()


def test_adapters_are_no_pruned_weights():
    model = adapted(**ADAPTERS["lora"])
    bare = copy.deepcopy(model).unload()
    columns = ["kept", "revived", "new", "sparsity_prunable"]
    assert sr.track(model).totals[columns].equals(sr.track(bare).totals[columns])
