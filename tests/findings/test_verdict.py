"""Verdicts: at most two sentences, by severity, each with numbers of the frames."""

from dataclasses import replace

import measurements
import packing
import pandas as pd
import pytest
import smaller_mixtures
import torch
import transformers
from helpers import Tiny, study_of
from torch import nn
from wording import check_length, key_of, statements_of

import sparsity_report as sr
from sparsity_report.findings.strip_text import strip_texts
from sparsity_report.findings.verdict import size_change, verdict
from sparsity_report.study.derived.heads_experts import fewer_experts
from sparsity_report.words.catalogue import catalogue

KEYS = {key for key in catalogue() if key.startswith("verdict.")} - {"format.paragraph"}


def pruned(weights, *shares, csr=False, **named):
    """A dense model, and prunings by global magnitude or as given by name."""
    make = sr.csr if csr else sr.masked
    variants = [make(sr.global_magnitude(weights, share)) for share in shares]
    variants += [make(pruning, name=name) for name, pruning in named.items()]
    return sr.compare(sr.dense(weights), *variants)


def scored(study, **perplexities):
    """Give Dense a perplexity of 10, and others theirs."""
    names, levels = ("Dense", *perplexities), (10.0, *perplexities.values())
    frame = measurements.quality([(0.0, level) for level in levels], names)
    return measurements.put_in(study, quality=frame)


def keys(study):
    """Return the keys of the statements of a verdict."""
    answer = verdict(study)
    assert not answer[0].islower() or answer.startswith(study.variants["variant"].tolist()[0])
    check_length(answer)
    return [key.removeprefix("verdict.") for key, _ in statements_of(answer, KEYS)]


def values_in(study, key):
    """Return the values of the one statement with a key."""
    statements = statements_of(verdict(study), KEYS)
    (values,) = (values for each, values in statements if each == f"verdict.{key}")
    return values


@pytest.fixture(scope="module")
def half(demo):
    return pruned(demo, 0.5)


@pytest.mark.parametrize(
    ("after", "key", "text"),
    [
        (100.0, "wrecked", "Removing half of 786 k prunable weights wrecks the model: perplexity "
         "rises from 10.0 to 100"),
        (99.9, "perplexity_rises", "Removing half of 786 k prunable weights raises perplexity from "
         "10.0 to 99.9"),
        (10.04, "perplexity_same", "Removing half of 786 k prunable weights leaves perplexity at "
         "10.0"),
        (10.06, "perplexity_rises", "from 10.0 to 10.1"),
        (9.7, "perplexity_falls", "lowers perplexity from 10.0 to 9.7"),
        (1023.4, "wrecked", "from 10.0 to 1\u202f023"),
        (1024.0, "guessing", "Removing half of 786 k prunable weights leaves predictions worse "
         "than uniform guessing (perplexity was 10.0)"),
    ],
)  # fmt: skip
def test_perplexity_before_and_after_opens_the_verdict(half, after, key, text):
    """The demo model chooses among 1,024 tokens."""
    study = scored(half, Masked50=after)
    assert keys(study)[:2] == [key, "removing_50"]
    assert text in verdict(study)


def test_a_score_of_one_layout_is_that_of_the_pruning(demo):
    """CSR30 has the zeros of Masked30."""
    study = scored(study_of(demo), CSR30=12.5)
    assert "30 % of 786 k prunable weights raises perplexity from 10.0 to 12.5" in verdict(study)


def test_a_model_that_guessed_before_says_so(half):
    names = ("Dense", "Masked50")
    frame = measurements.quality(((0.0, 2000.0), (0.5, 3000.0)), names)
    assert keys(measurements.put_in(half, quality=frame))[0] == "guessing_before"


@pytest.fixture(scope="module")
def rivals(demo):
    layerwise, n_m = sr.layerwise_magnitude(demo, 0.5), sr.n_m(demo, 2, 4)
    return pruned(demo, 0.5, 0.9, Layerwise=layerwise, Pattern=n_m)


def test_the_best_of_prunings_to_one_sparsity_opens_the_verdict(rivals):
    """Three prune to 50 %, one to 90 %: the level of most is compared, and no winner named."""
    study = scored(rivals, Masked50=12.0, Layerwise=11.5, Pattern=21.3, Masked90=9000.0)
    assert verdict(study) == (
        "Removing half of 786 k prunable weights with layerwise magnitude raises perplexity from "
        "10.0 to 11.5. At 50 %, the highest of 3 perplexities is 21.3, with 2:4, and none is "
        "called lowest."
    )
    two = scored(rivals, Masked50=12.0, Pattern=1024.0)
    assert "highest of 2 perplexities is worse than uniform guessing, with 2:4" in verdict(two)
    lost = scored(rivals, Masked50=2000.0, Pattern=1024.0)
    assert keys(lost)[:2] == ["guessing", "with_method"]
    assert "Removing half of 786 k prunable weights with 2:4 " in verdict(lost)


def test_prunings_by_one_method_have_their_names(demo):
    seeds = {f"Seed{n}": sr.random_unstructured(demo, 0.5, seed=n) for n in (1, 2)}
    study = scored(pruned(demo, **seeds), Seed1=30.0, Seed2=20.0)
    assert "with random with seed 2 raises" in verdict(study)
    assert "30.0, with random with seed 1," in verdict(study)
    # As Wanda calibrated on two texts.
    method = study.variants["method"]
    wanda = method.mask(method.notna(), "wanda")
    study = replace(study, variants=study.variants.assign(method=wanda, basis_fingerprint=[*"abc"]))
    assert "30.0, with Seed1," in verdict(study)


@pytest.mark.parametrize("cells", [{"window": 128, "tokens": 200}, {"text_fingerprint": "f" * 16}])
def test_scores_by_two_protocols_are_not_compared(demo, cells):
    """Dense was scored by both protocols, and each pruning by another one."""
    prunings = {"A": sr.global_magnitude(demo, 0.5), "B": sr.layerwise_magnitude(demo, 0.5)}
    levels = {"A": prunings["A"], "C": sr.global_magnitude(demo, 0.3)}
    for named in (prunings, levels):
        study = pruned(demo, **named)
        frames = [measurements.quality([(0.0, 8.0), (0.5, 9.0)], ("Dense", name)) for name in named]
        frame = pd.concat([frames[0], frames[1].assign(**cells)], ignore_index=True)
        both = measurements.put_in(study, quality=frame)
        assert ("perplexity" in verdict(both)) == (named is levels)
        same = measurements.put_in(study, quality=pd.concat(frames, ignore_index=True))
        assert "perplexity" in verdict(same)


def zeroed(model, share):
    """Zero some rows of each prunable layer of a model."""
    with torch.no_grad():
        for layer in sr.select_prunable_linears(model):
            layer.weight[: round(share * len(layer.weight))] = 0
    return model


def test_zeros_before_are_where_the_verdict_starts():
    """Newly zeroed weights, zeros before, and zeros in all each have a figure."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"embed": nn.Embedding(50, 20), "fc1": nn.Linear(20, 30, bias=False)})
    with torch.no_grad():
        model["fc1"].weight.view(-1)[:90] = 0  # 15 % of 600
        model["embed"].weight.view(-1)[:7] = 0
    weights = sr.load(model, name="some zeros")
    study = scored(pruned(weights, 0.5), Masked50=12.0)
    assert "raising sparsity from 15.0 % to 50.0 % of 600 prunable weights" in (
        verdict(study).lower()
    )
    text = " ".join(sr.summarize(study)).replace("\u202f", "")
    assert (
        "Pruning zeroed 210 of 600 prunable weights in Masked50: 35.0 %, or 13.1 % of all "
        "parameters. 90 prunable weights were zero before, so 300 are zero in all (50.0 %). With 7 "
        "zeros in other parameters, 19.2 % of all parameters are zero." in text
    )


def test_few_zeros_before_do_not_change_the_verdict():
    """33,483 zeros of 106 million are no sparsity, and are not zeroed again: 0.03 %."""
    torch.manual_seed(0)
    layer = nn.Linear(200, 100, bias=False)
    with torch.no_grad():
        layer.weight.view(-1)[:6] = 0
    weights = sr.load(nn.ModuleDict({"fc1": layer}), name="few zeros")
    study = scored(pruned(weights, 0.5), Masked50=12.0)
    assert keys(study)[:2] == ["perplexity_rises", "removing_50"]
    text = " ".join(sr.summarize(study)).replace("\u202f", "")
    assert "zeroed 9994 of 20000 prunable weights" in text
    assert "6 prunable weights were zero before, so 10000 are zero in all (50.0 %)" in text


def test_the_sparsity_is_what_was_reached():
    """Half of the weights were zero, so that a target of 10 % removes none."""
    weights = sr.load(zeroed(Tiny(), 0.5), name="half")
    study = sr.compare(sr.masked(sr.global_magnitude(weights, 0.1)))
    assert "With 50 % of 312 prunable weights zero" in verdict(study)


# Size.


@pytest.mark.parametrize(
    ("ratio", "key"),
    [
        (0.9949, "csr_smaller"), (0.9951, "csr_same"), (1.0049, "csr_same"),
        (1.0051, "csr_larger"), (1.33, "csr_larger"),
        (1.34, "csr_larger"), (1.89, "csr_larger"), (1.9, "csr_times"),
    ],
)  # fmt: skip
def test_change_of_size_is_written_in_words(ratio, key):
    assert key_of(size_change(ratio)) == f"verdict.{key}"


def dense_total(study):
    rows = study.layers[study.layers["variant"] == "Dense"]
    return int(rows["total"].sum()) * 4


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.02, ["at_sparsity", "and", "csr_larger", "no_layout_saves"]),
     (0.3, ["at_sparsity", "while", "csr_larger", "other_layout"]),
     (0.5, ["at_sparsity", "while", "csr_same", "other_layout"]),
     (0.8, ["at_sparsity", "while", "csr_smaller", "other_layout"]),
     (1.0, ["at_sparsity", "csr_smaller"])],
)  # fmt: skip
def test_one_sentence_on_size_has_one_denominator(demo, share, expected):
    """Bytes of CSR and of a bitmask, both of the whole model, from counts."""
    study = pruned(demo, share, csr=True)
    assert keys(study) == expected
    rows = study.layers.query("variant != 'Dense'")
    matrices = rows[rows["prunable"]]
    nonzero, total = (int(matrices[c].sum()) for c in ("weight_nonzero", "weight_total"))
    pointers = sum(shape[0] + 1 for shape in matrices["shape"])
    whole = dense_total(study)
    zeros = 4 * (total - nonzero)
    csr = (whole - zeros + 4 * nonzero + 4 * pointers) / whole
    change = values_in(study, next(key for key in expected if key.startswith("csr_")))
    assert change.get("share", f"{abs(csr - 1):.0%}"[:-1]) == f"{abs(csr - 1):.0%}"[:-1]
    assert size_change(csr) in verdict(study)
    if expected[-1] == "other_layout":
        saved = f"{(zeros - total / 8) / whole:.0%}".replace("%", " %")
        assert values_in(study, "other_layout") == {"layout": "bitmask", "saved": saved}


def test_csr_alone_may_be_smallest():
    """With almost all weights zero and few rows, no layout is smaller than CSR."""
    torch.manual_seed(0)
    weights = sr.load(nn.ModuleDict({"fc1": nn.Linear(70_000, 3, bias=False)}), name="wide")
    assert keys(pruned(weights, 0.99, csr=True)) == ["at_sparsity", "csr_smaller"]


def test_masks_save_nothing(half, demo):
    assert keys(half) == ["at_sparsity", "while", "masked", "other_layout"]
    hardly = pruned(demo, 0.02)
    assert verdict(hardly) == (
        "With 2 % of 786 k prunable weights zero, no lossless layout saves space."
    )


def test_a_layout_that_is_smallest_loses_no_weight_of_any_pruning():
    """Alone, a pruning to whole blocks is smallest as blocks, which another would fill."""
    layer = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        layer.weight[32:] += layer.weight[32:].sign()
    weights = sr.load(nn.ModuleDict({"fc1": layer}), name="blocks")
    masked = [sr.masked(sr.global_magnitude(weights, 0.5)), sr.masked(sr.n_m(weights, 2, 4))]
    layouts = [
        values_in(sr.compare(sr.dense(weights), *some, patterns=True), "other_layout")["layout"]
        for some in (masked[:1], masked)
    ]
    assert layouts == ["BSR 32 × 32", "bitmask"]


def test_a_sparsity_that_only_masks_have_is_not_that_of_csr(demo):
    """CSR stores 30 %; the verdict is about 60 %."""
    study = sr.compare(
        sr.dense(demo),
        sr.csr(sr.global_magnitude(demo, 0.3)),
        sr.masked(sr.global_magnitude(demo, 0.6)),
    )
    assert keys(study) == ["at_sparsity", "while", "masked", "other_layout"]
    assert values_in(study, "at_sparsity")["share"] == "60"


def test_no_saving_is_claimed_against_bytes_that_nobody_stores(tmp_path):
    """A bitmask of float32 values is smaller than dense float32, and larger than the 4-bit file."""
    folder, _ = packing.packed_llama(tmp_path, "gptq-4-v1")
    weights = sr.load(folder, name="packed")
    masked = pruned(weights, 0.5)
    in_file, dense = (masked.totals[name].iloc[0] for name in ("file_bytes", "stored_bytes"))
    assert in_file < masked.facts.size("Masked50", "bitmask") < dense
    assert verdict(masked).endswith(f"smaller than the packed tensors ({in_file / 1000:.1f} kB).")
    assert verdict(study_of(weights, 0.5)) == verdict(masked)


def test_a_layout_that_saves_is_compared_with_the_file(tmp_path):
    folder, _ = packing.packed_llama(tmp_path, "gptq-4-v1")
    study = pruned(sr.load(folder, name="packed"), 0.99)
    in_file = study.totals["file_bytes"].iloc[0]
    whole = study.storage.query("variant == 'Masked99' and scope == 'model' and lossless == True")
    saved = f"{1 - whole['bytes'].min() / in_file:.0%}".replace("%", " %")
    assert values_in(study, "other_layout_than_file")["saved"] == saved


# Models.


def test_zeros_of_rounding_are_no_pruning(tmp_path):
    folder, _ = packing.packed_llama(tmp_path, "gptq-4-v1")
    study = sr.compare(sr.dense(sr.load(folder)))
    own = study.layers[study.layers["prunable"]]
    share = 1 - own["weight_nonzero"].sum() / own["weight_total"].sum()
    assert share > 0.05
    assert study.facts.contenders == ()
    assert keys(study) == ["sparsity_packed"]
    assert verdict(study).startswith(f"{100 * share:.1f} % of the ")


def test_a_pruning_is_compared_with_its_own_model(demo):
    """Neither bytes nor perplexity of a larger model are those before pruning."""
    torch.manual_seed(0)
    tiny = sr.load(Tiny(width=64, hidden=96, vocabulary=500), name="tiny")
    masked = sr.masked(sr.global_magnitude(tiny, 0.5), name="M")
    other = scored(sr.compare(sr.dense(demo), masked), M=12.0)
    assert keys(other)[0] == "at_sparsity"
    rows = other.layers[other.layers["variant"] == "M"]
    zeros = int((rows["weight_total"] - rows["weight_nonzero"]).sum())
    bits = int(rows.loc[rows["prunable"], "weight_total"].sum()) / 8
    saved = (4 * zeros - bits) / (4 * int(rows["total"].sum()))
    saved = f"{saved:.0%}".replace("%", " %")
    assert values_in(other, "other_layout")["saved"] == saved
    own = sr.compare(sr.dense(demo), sr.dense(tiny, name="Own"), masked)
    frame = measurements.quality(((0.0, 10.0), (0.0, 11.0), (0.5, 12.0)), ("Dense", "Own", "M"))
    own = measurements.put_in(own, quality=frame)
    assert "from 11.0 to 12.0" in verdict(own)


def test_a_model_pruned_elsewhere_is_compared_with_the_baseline(demo):
    """It has as many parameters, so that it is the same model before pruning."""
    module = sr.masked(sr.global_magnitude(demo, 0.5)).module()
    other = sr.dense(sr.load(module, name="theirs"), name="Theirs")
    study = scored(sr.compare(sr.dense(demo), other), Theirs=12.0)
    assert "Removing half of 786 k prunable weights raises perplexity from 10.0 to 12.0." in str(
        verdict(study)
    )
    unscored = sr.compare(sr.dense(demo), other)
    assert keys(unscored) == ["came_pruned", "other_layout"]
    assert verdict(unscored).startswith(
        "Theirs came with 50.0 % of its 786 k prunable weights zero"
    )
    alone = scored(sr.compare(other, sr.masked(sr.existing_zeros(other.weights))), Theirs=12.0)
    assert keys(alone)[0] == "came_pruned"


def test_a_model_without_zeros_is_not_called_pruned(demo):
    kept = sr.existing_zeros(demo)
    study = scored(
        sr.compare(sr.dense(demo), sr.masked(kept, name="AsIs"), sr.csr(kept)), AsIs=10.0
    )
    assert keys(study)[0] == "no_zeros"
    assert "0 %" not in verdict(study)


def test_further_pruning_of_a_pruned_model_is_at_its_own_sparsity(demo):
    module = sr.masked(sr.global_magnitude(demo, 0.5)).module()
    weights = sr.load(module, name="theirs")
    study = pruned(weights, 0.6)
    assert verdict(study).startswith("With 60 % of 786 k prunable weights zero, ")
    assert "Raising sparsity from 50.0 % to 60.0 % of 786 k prunable weights raises" in str(
        verdict(scored(study, Masked60=12.0))
    )


# The key fact of a model.


def saved_and_opened(change):
    """Return a study of the demo model with a change, as opened, with patterns."""
    module = sr.load().module()
    with torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear) and "layers" in name:
                change(name, layer.weight)
    return sr.compare(sr.dense(sr.load(module, name="theirs")), patterns=True)


def two_four(_, weight):
    groups = weight.view(-1, 4)
    groups.scatter_(1, groups.abs().argsort(dim=1)[:, :2], 0.0)


def half_of_the_heads(name, weight):
    if "self_attn" in name:
        (weight.T if "out_proj" in name else weight)[:64] = 0


def blocks_of_eight(_, weight):
    rows, columns = weight.shape
    mask = torch.rand(rows // 8, columns // 8) > 0.5
    weight *= mask.repeat_interleave(8, 0).repeat_interleave(8, 1)


def random_and_dead_columns(name, weight):
    weight *= torch.rand(weight.shape) > 0.5
    if name.endswith("1.fc2"):
        weight[:, :273] = 0


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (two_four, "in the 2:4 pattern in 24 of 24 prunable matrices"),
        (half_of_the_heads, "in whole attention heads (32 in all projections)"),
        (blocks_of_eight, "in whole blocks of 8 × 8 weights"),
        (random_and_dead_columns, "including 273 all-zero columns"),
    ],
)  # fmt: skip
def test_the_zeros_of_an_opened_model_have_their_place_in_the_verdict(change, place):
    torch.manual_seed(0)
    study = saved_and_opened(change)
    assert keys(study)[0] == "came_pruned_in"
    assert values_in(study, "came_pruned_in")["place"] == place
    assert verdict(study).startswith("The model came with ")


def test_of_layouts_of_one_size_2_4_is_named():
    """Half of each group of four is zero, so that 2:4 takes the bytes of a bitmask."""
    torch.manual_seed(0)
    study = saved_and_opened(two_four)
    sizes = study.storage.query("scope == 'model'").set_index("layout")["bytes"]
    assert sizes["2:4"] == sizes["bitmask"] == sizes.min()
    assert values_in(study, "other_layout")["layout"] == "2:4"
    assert study.facts.common_layout(["Dense"]) == "2:4"


def test_a_model_without_head_has_no_perplexity():
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=8,
    )  # fmt: skip
    torch.manual_seed(0)
    encoder = pruned(sr.load(transformers.BertModel(config), name="bert"), 0.5)
    assert strip_texts(encoder.facts)[0]["number"] == "no perplexity"  # nor advice to measure one
    decoder = pruned(sr.load(transformers.BertLMHeadModel(config), name="bert"), 0.5)
    assert strip_texts(decoder.facts)[0]["note"] == "run with --perplexity"


# Unpruned, unknown and odd.


def experts(_):
    config = transformers.MixtralConfig(
        vocab_size=32, hidden_size=4, intermediate_size=4, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=96, num_experts_per_tok=2,
    )  # fmt: skip
    return study_of(sr.load(transformers.MixtralForCausalLM(config), name="mixture"), 0.5)


def hostile(_):
    """Names that look like templates, markup and directions."""
    weights = sr.load(Tiny(), name="{x}</script>\u202e")
    dense = sr.dense(weights, name="{0.__class__}<b>\u202e" + "n" * 99)
    study = sr.compare(dense, sr.masked(sr.global_magnitude(weights, 0.5), name="{share}\n"))
    frame = measurements.latency((dense.name, "{share}\n", "CSR30"))
    frame = frame[frame["variant"] != "CSR30"].assign(realised_low=0.3, realised_high=0.4)
    frame.loc[frame["variant"] == dense.name, ["realised_low", "realised_high"]] = 1.0
    return measurements.put_in(study, latency=frame)


def few_zeros(_):
    model = Tiny()
    with torch.no_grad():
        model.layers[0]["fc1"].weight[0, 0] = 0
    return sr.compare(sr.dense(model))


def plain(*layers):
    return nn.ModuleDict(
        {f"fc{n}": nn.Linear(*sizes, bias=False) for n, sizes in enumerate(layers)}
    )


ODD = {
    "unpruned": (lambda _: sr.compare(sr.dense(sr.load())),
                 "None of the 786 k prunable weights of Dense are zero."),
    "few zeros": (few_zeros, "0.3 % of the 312 prunable weights of Dense are zero."),
    "no prunable": (lambda _: sr.compare(sr.dense(nn.ModuleDict({"norm": nn.LayerNorm(4)}))),
                    "Dense has no prunable weights."),
    "meta": (lambda _: sr.compare(sr.dense(Tiny().to("meta"))),
             "The sparsity of Dense is unknown, because its weights have no values."),
    "all zero": (lambda _: sr.compare(sr.dense(zeroed(Tiny(), 1))),
                 "The model came with 100.0 % of its 312 prunable weights zero. "),
    "all zero, pruned": (lambda _: study_of(sr.load(zeroed(Tiny(), 1), name="zero"), 0.5),
                         "The model came with 100.0 % of its 312 prunable weights zero. CSR makes "
                         "the model "),
    "no attention": (lambda _: study_of(sr.load(plain((20, 30), (30, 20)), name="mlp"), 0.5),
                     "With 50 % of 1.20 k prunable weights zero, CSR makes the model 4 % larger, "
                     "while bitmask storage saves 47 %."),
    "one block": (lambda _: study_of(sr.load(Tiny(blocks=1), name="one"), 0.5), "With 50 % of "),
    "experts": (experts, "With 50 % of "),
    "hostile": (hostile, "With 50 % of 312 prunable weights zero, masking saves no space, while "),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_input_has_a_sensible_verdict(case, tmp_path):
    torch.manual_seed(0)
    make, text = ODD[case]
    study = make(tmp_path)
    assert keys(study)
    assert verdict(study).startswith(text)
    assert "\u202e" not in verdict(study)
    assert len(verdict(study)) < 300


@pytest.mark.parametrize(
    ("after", "text"),
    [(12.5, "raises perplexity from 10.0 to 12.5"), (9.5, "lowers perplexity from 10.0 to 9.5"),
     (None, "")],
)  # fmt: skip
def test_a_model_without_experts_has_its_quality_and_parameters(after, text, tmp_path):
    smaller_mixtures.saved(tmp_path, "Mixtral")
    weights = sr.load(tmp_path, name="mixture")
    variant = sr.without_experts(smaller_mixtures.keep(weights), name="Six")
    study = sr.compare(sr.dense(weights), variant)
    if after is not None:
        study = scored(study, Six=after)
    # Per block and expert 3 · 16 · 24 weights and a row of the router.
    total = study.totals.set_index("variant")["total"]
    assert total["Dense"] - total["Six"] == 2 * 2 * (3 * 16 * 24 + 16)
    fewer = round(100 * (1 - total["Six"] / total["Dense"]))
    used = total["Six"] - 2 * 4 * 3 * 16 * 24  # a token uses two of six experts
    size = (
        f"Six has {fewer} % fewer parameters, {total['Six'] / 1e3:#.3g} k, and a token uses "
        f"{used / 1e3:#.3g} k of them."
    )
    quality = f"Removing 4 of 16 experts (Six) {text}. " if text else ""
    assert verdict(study) == quality + size
    read = sr.read_study(study.save(tmp_path / "s.json"))
    assert {
        name: (len(rows), rows["is_kept"].sum()) for name, rows in fewer_experts(read).items()
    } == {"Six": (16, 12)}
