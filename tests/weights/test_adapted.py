"""A base with an adapter of LoRA: PEFT's own merge says what every value is."""

import copy
import dataclasses
import json
import pickle

import numpy as np
import packing
import pytest
import torch
import transformers
from helpers import command, refused, small_llama, swept, turned_on_loading, write_gguf
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.counting.counts import count_weights
from sparsity_report.untrusted import limits
from sparsity_report.weights.adapters.merged_adapter import AdaptedSlice
from sparsity_report.weights.sources.checkpoint import CheckpointWeights
from sparsity_report.weights.tensor_slices import Entry, join_slices
from sparsity_report.weights.torch_tensors import to_tensor
from sparsity_report.words.sentences import say

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft asks transformers the old way
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning"),
    pytest.mark.filterwarnings("ignore:The following alpha_pattern keys:RuntimeWarning"),
]


def small_gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=64, n_embd=24, n_layer=2, n_head=4, n_positions=32,
        bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


def small_nomic_bert():
    if not hasattr(transformers, "NomicBertModel"):
        pytest.skip(f"transformers {transformers.__version__} has no NomicBERT")
    torch.manual_seed(0)
    config = transformers.NomicBertConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, head_dim=8,
    )  # fmt: skip
    return transformers.NomicBertModel(config).eval()


MODELS = {"llama": small_llama, "gpt2": small_gpt2, "nomic_bert": small_nomic_bert}
LINEAR = {"target_modules": ["q_proj", "v_proj", "down_proj"]}
CONV1D = {"target_modules": ["c_attn", "c_proj", "c_fc"]}
CASES = {
    "plain": ("llama", {"r": 4, "lora_alpha": 8, **LINEAR}),
    "rank-stabilised": ("llama", {"r": 3, "lora_alpha": 7, "use_rslora": True, **LINEAR}),
    "patterns": (
        "llama",
        {"r": 2, "lora_alpha": 5, "rank_pattern": {r"layers\.1\..*proj": 6, "q_proj": 1},
         "alpha_pattern": {"own_proj": 99, "^model.layers.0.self_attn.q_proj": 3, "v_proj": 0.5},
         **LINEAR},
    ),
    "some layers": ("llama", {"r": 2, "target_modules": ["1.self_attn.q_proj", "1.mlp.down_proj"]}),
    "all linear": ("llama", {"r": 2, "target_modules": "all-linear"}),
    "trained head": ("llama", {"r": 2, "modules_to_save": ["lm_head", "norm"], **LINEAR}),
    "gaussian": ("llama", {"r": 2, "init_lora_weights": "gaussian", **LINEAR}),
    "Conv1D": ("gpt2", {"r": 4, **CONV1D}),
    "all biases": ("gpt2", {"r": 2, "bias": "all", **CONV1D}),
    "their biases": ("gpt2", {"r": 2, "bias": "lora_only", **CONV1D}),
    "embedding": ("gpt2", {"r": 3, "lora_alpha": 7, "target_modules": ["wte", "c_attn"]}),
    "fused on disk": ("nomic_bert", {"r": 4, "target_modules": ["q_proj", "v_proj"]}),
    "embedding and head": ("llama", {"r": 4, "target_modules": ["embed_tokens", "lm_head"]}),
}  # fmt: skip


def write(folder, case, dtype=torch.float32, dyadic=True, sparsity=0):
    """Write a base, and an adapter of it that PEFT saves; return PEFT's adapted model."""
    kind, options = CASES[case]
    base = MODELS[kind]().to(dtype)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter[torch.rand(parameter.shape) < sparsity] = 0
    base.save_pretrained(folder / "base")
    base = type(base).from_pretrained(folder / "base", dtype=dtype)
    adapted = peft.get_peft_model(base, peft.LoraConfig(**options))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                few = torch.randint(-8, 9, parameter.shape) / 8
                parameter.copy_(few if dyadic else torch.randn(parameter.shape))
    adapted.save_pretrained(folder / "adapter")
    return adapted


def opened(folder, **options):
    return sr.load(folder / "adapter", base=folder / "base", **options)


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_every_value_is_that_of_pefts_merge(tmp_path, case, dtype):
    # Of dyadic matrices each sum is exact in float32, so that nothing depends on its order.
    merged = write(tmp_path, case, dtype, sparsity=0.5).merge_and_unload()
    weights = opened(tmp_path)
    values = dict(merged.named_parameters())
    assert {p.name for p in weights.parameters} == values.keys()
    changed = 0
    base = sr.load(tmp_path / "base")
    for name, value in values.items():
        assert weights[name].dtype == str(dtype).removeprefix("torch.")
        assert torch.equal(bits(weights.tensor(name)), bits(value)), name
        changed += not torch.equal(base.tensor(name), value)
    assert changed > 1
    counts = count_weights(weights)
    for name, value in values.items():
        assert counts[name].nonzero == np.count_nonzero(value.detach().float().numpy())
    live = dict(weights.module().named_parameters())
    assert all(torch.equal(live[name], value) for name, value in values.items())


@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["trained head", "all biases", "embedding and head"])
def test_an_adapter_in_a_file_is_what_peft_reads_of_it(tmp_path, case, dtype, saved):
    adapted = write(tmp_path, case, dtype)
    # Embeddings that were resized and trained are in the file, too, with values of their own.
    edit(tmp_path, {"fan_in_fan_out": False}, lambda held: {
        key: (value + ("base_layer" in key) / 3).to(saved) for key, value in held.items()
    })  # fmt: skip
    base = type(adapted.get_base_model()).from_pretrained(tmp_path / "base", dtype=dtype)
    read = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    weights = opened(tmp_path)
    for name, value in read.merge_and_unload().named_parameters():
        assert torch.equal(bits(weights.tensor(name)), bits(value)), name
        slices = list(weights.slices(name))
        pieces = [piece for part in slices for piece in part.pieces()]
        assert {each.dtype for each in slices} == {str(dtype).removeprefix("torch.")}
        assert {to_tensor(each).dtype for each in pieces} == {dtype}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["plain", "Conv1D", "embedding"])
def test_random_values_are_within_a_rounding_of_pefts(tmp_path, case, dtype):
    merged = write(tmp_path, case, dtype, dyadic=False).merge_and_unload()
    weights = opened(tmp_path)
    for name, value in merged.named_parameters():
        near = 4 * torch.finfo(torch.float32).eps * 32 + 2 * torch.finfo(dtype).eps * value.abs()
        assert ((weights.tensor(name).double() - value.double()).abs() <= near).all(), name


def test_zeros_of_a_pruned_base_are_gone_where_it_is_adapted_and_only_there(tmp_path):
    write(tmp_path, "plain", sparsity=0.5, dyadic=False)
    base, merged = sr.load(tmp_path / "base"), opened(tmp_path)
    before, after = (count_weights(w) for w in (base, merged))
    adapted = {f"model.layers.{i}.self_attn.{m}_proj.weight" for i in range(2) for m in "qv"}
    adapted |= {f"model.layers.{i}.mlp.down_proj.weight" for i in range(2)}
    for p in base.parameters:
        assert 0.3 < before[p.name].nonzero / p.total < 0.7
        assert after[p.name].nonzero == (p.total if p.name in adapted else before[p.name].nonzero)
    layers = sr.dense(merged).layers().set_index("module_name")
    assert layers.loc["model.layers.0.self_attn.q_proj", "sparsity"] == 0


def test_notes_count_the_parts_of_an_adapter(tmp_path):
    write(tmp_path, "trained head")
    total = sum(p.total for p in sr.load(tmp_path / "base").stored)
    pairs = 2 * 2 * ((32 + 32) + (32 + 16) + (48 + 32))
    counts = {"base_parameters": total, "parameters": pairs, "pairs": 6, "ranks": [2]}
    replaced = say("note.adapter_replaces", tensors=6)
    weights = opened(tmp_path)
    assert weights.name == "adapter"
    assert weights.notes == (say("note.adapter_merged", base="base", **counts), replaced)


def test_slices_are_cut_and_read_anywhere_and_compare_by_value(tmp_path, monkeypatch):
    write(tmp_path, "Conv1D", dyadic=False)
    weights, name = opened(tmp_path), "transformer.h.0.attn.c_attn.weight"
    whole = weights.array(name)
    monkeypatch.setattr("sparsity_report.weights.tensor_slices._SLICE", 5 * 72)
    for buffer in (1, 7, 72, 100):  # a row holds 72
        monkeypatch.setattr("sparsity_report.weights.adapters.merged_adapter._BUFFER", buffer)
        slices = pickle.loads(pickle.dumps(list(weights.slices(name))))
        assert len(slices) == 5
        assert (join_slices(slices, "float32", whole.shape) == whole).all()
        assert all(piece.size <= buffer for part in slices for piece in part.pieces())
    assert [source.file.name for source in slices[0].sources()] == [
        "model.safetensors", "adapter_model.safetensors", "adapter_model.safetensors",
    ]  # fmt: skip
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    before = {repr(part) for part in slices}
    assert before == {repr(part) for part in opened(tmp_path).slices(name)}
    assert not before & {repr(p) for p in sr.load(tmp_path / "base").slices(name)}
    edit(tmp_path, config={"lora_alpha": config["lora_alpha"] + 1})
    assert not before & {repr(part) for part in opened(tmp_path).slices(name)}
    edit(tmp_path, config, lambda held: {key: 2 * value for key, value in held.items()})
    assert not before & {repr(part) for part in opened(tmp_path).slices(name)}


def test_only_rows_of_a_slice_are_multiplied(tmp_path, monkeypatch):
    asked, rows = [], Entry.rows

    def read(self, start=0, stop=None):
        if "lora_B" in self.key:
            asked.append(stop - start)
        return rows(self, start, stop)

    write(tmp_path, "plain")
    monkeypatch.setattr(
        "sparsity_report.weights.adapters.merged_adapter._BUFFER", 64
    )  # two rows of 32
    weights = opened(tmp_path)
    (part,) = weights.slices("model.layers.0.self_attn.q_proj.weight")
    assert isinstance(part, AdaptedSlice)
    monkeypatch.setattr(Entry, "rows", read)
    list(part.pieces())
    assert asked == [2] * 16


def test_counts_that_are_kept_are_those_of_this_adapter(tmp_path):
    def counted():
        pruning = sr.global_magnitude(opened(tmp_path), 0.3, cache=tmp_path / "kept")
        return sr.dense(pruning.weights).layers()["nonzero"].sum(), pruning.threshold

    write(tmp_path, "plain", dyadic=False)
    first = counted()
    kept = set((tmp_path / "kept").iterdir())
    assert counted() == first
    assert set((tmp_path / "kept").iterdir()) == kept
    edit(tmp_path, tensors=lambda held: {key: 2 * value for key, value in held.items()})
    assert counted()[1] > first[1]


def edit(folder, config=None, tensors=None):
    """Change the configuration or the tensors of an adapter that was saved."""
    adapter = folder / "adapter"
    if config is not None:
        told = json.loads((adapter / "adapter_config.json").read_text()) | config
        (adapter / "adapter_config.json").write_text(json.dumps(told))
    if tensors is not None:
        held = tensors(load_file(adapter / "adapter_model.safetensors"))
        save_file(held, adapter / "adapter_model.safetensors")


# Values of the fields of a configuration, beside those that any field may hold.
ANY = (None, False, True, 0, 1, 3, 1.5, "", "x", [], [1], ["q_proj"], {}, {"q_proj": 4})
FULL = "model.layers.1.self_attn.q_proj"
FIELDS = {
    "target_modules": [
        ["q_proj", "v_proj"], ["layers.0.self_attn.q_proj", "down_proj"], [FULL], ["k_proj"],
        ["q_proj", "v_proj", "down_proj", "k_proj"], ["proj"], ["", "q_proj"], ["Q_PROJ"],
        r".*\.(q|v|down)_proj", r".*layers\.1\..*(q|v|down)_proj", "q_proj", "all-linear", "(",
        r"(?i).*\.(Q|v|down)_proj", "model.layers.0.self_attn.(q_proj|v_proj)|x", [1, "q_proj"],
        "(?:.*?(?:language|text|model).*?(?:self_attn|mlp).*?(?:q_proj|v_proj|down_proj).*?)",
    ],
    "exclude_modules": [
        ["v_proj"], ["model.layers.0.mlp.down_proj"], ["layers.0.mlp.down_proj"], [FULL],
        ["mlp"], r".*layers\.0.*", "v_proj", r".*[vn]_proj", ["q_proj", "v_proj", "down_proj"],
        ["norm"], ["nothing"], "(",
    ],
    "modules_to_save": [["lm_head"], ["layers.0"], ["v_proj"], ["norm"], ["self_attn"], ["("]],
    "rank_pattern": [{"q_proj": 2}, {"": 4}, {"q_proj": 1.5}, {"q_proj": "2"}],
    "alpha_pattern": [{"q_proj": 2.5}, {r"layers\.1\..*": 0}, {"q|v_proj": 1}, {"(": 2}],
    "init_lora_weights": ["gaussian", "pissa", "olora", "eva", "orthogonal", "loftq", "mica"],
    "bias": ["none", "all", "lora_only"],
    "task_type": ["CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", "FEATURE_EXTRACTION", "SEQ_2_SEQ_LM"],
    "peft_type": ["LORA", "IA3", "OFT"],
}  # fmt: skip


def merged_by_peft(base, folder):
    """Return the values of PEFT's merge; None where it refuses the configuration."""
    try:
        read = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder)
        return dict(read.merge_and_unload().named_parameters())
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError):
        return None


@pytest.mark.filterwarnings("ignore")  # PEFT warns of most values
@pytest.mark.parametrize(
    "field", swept([each.name for each in dataclasses.fields(peft.LoraConfig)], 3)
)
def test_each_field_of_a_configuration_means_what_it_means_to_peft(tmp_path, field):
    base = copy.deepcopy(write(tmp_path, "plain", sparsity=0.5)).unload()
    folder = tmp_path / "adapter"
    plain = merged_by_peft(base, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    for value in [*ANY, *FIELDS.get(field, ())]:
        (folder / "adapter_config.json").write_text(json.dumps(config | {field: value}))
        try:
            weights = opened(tmp_path)
        except sr.SparsityReportError:
            continue
        # Where PEFT fails, the field must not matter.
        expected = merged_by_peft(base, folder) or plain
        for name, tensor in expected.items():
            assert torch.equal(bits(weights.tensor(name)), bits(tensor)), (value, name)


Q = "base_model.model.model.layers.0.self_attn.q_proj."
A, B = f"{Q}lora_A.weight", f"{Q}lora_B.weight"


def without(key):
    return lambda held: {name: value for name, value in held.items() if name != key}


def put(**changed):
    names = {"A": A, "B": B}
    return lambda held: held | {names.get(key, key): value for key, value in changed.items()}


CONFIGS = {
    "an adapter of type 'IA3' is not LoRA": {"peft_type": "IA3"},
    "an adapter of type None": {"peft_type": None}, r"r = 0 for 'model\.layers\.0": {"r": 0},
    "r = 2.0 for": {"r": 2.0}, "r = True for": {"r": True},
    "are not matrices of rank 3, which adapter_config.json gives": {"r": 3},
    "lora_alpha = nan for": {"lora_alpha": float("nan")},
    "lora_alpha = inf for": {"lora_alpha": float("inf")},
    "lora_alpha = None for": {"lora_alpha": None}, "lora_alpha = '8' for": {"lora_alpha": "8"},
    r"lora_alpha = 1(0{30})": {"lora_alpha": 10**30},
    "'use_dora' is set, which is not supported": {"use_dora": True},
    "'target_parameters' is set": {"target_parameters": ["mlp.experts.gate_up_proj"]},
    "'layer_replication' is set": {"layer_replication": [[0, 1], [0, 1]]},
    "'alora_invocation_tokens' is set": {"alora_invocation_tokens": [1]},
    "'made_up' is set": {"made_up": 1},
    "'pissa_niter_4' changes the base itself": {"init_lora_weights": "pissa_niter_4"},
    "rank_pattern or alpha_pattern is not an object": {"rank_pattern": [1]},
    r"pattern '.*\(\(\)\$' of adapter_config.json is not a regular": {"rank_pattern": {"(": 4}},
    r"pattern '.*\(a\+\)\+.*' .* too complex": {"alpha_pattern": {"(a+)+": 4}},
    r"pattern '.*a\{999.*' .* too complex": {"alpha_pattern": {"a{99999999}": 4}},
    r"pattern '.*\.\|\.\..*' .* too complex": {
        "target_modules": "(?:.|..|...)" * 15 + ".*[A-Z]|.*"
    },
    "target_modules = None does not name the adapted modules": {"target_modules": None},
    "target_modules = 'all-linear' does not": {"target_modules": "all-linear"},
    "names 'model.layers.0.self_attn.k_proj', for which": {
        "target_modules": ["q_proj", "v_proj", "down_proj", "k_proj"]
    },
    "names 'lm_head', for which it lacks": {"modules_to_save": ["head"]},
    r"v_proj\.lora_A.weight' does not fit the modules": {"target_modules": ["q_proj", "down_proj"]},
    r"layers\.0\..*lora_A.weight' does not fit the modules": {
        "exclude_modules": r".*layers\.0\..*"
    },
    "'layers_to_transform' is set, which is not": {"layers_to_transform": [1]},
    "'layers_pattern' is set, which is not": {"layers_pattern": ["layers"]},
    "modules_to_save = 'x' is not a list": {"modules_to_save": "x"},
    "exclude_modules = 1 is neither a pattern nor": {"exclude_modules": 1},
}  # fmt: skip
TENSORS = {
    "it holds no matrices of LoRA": lambda _: {"base_model.model.lm_head.bias": torch.ones(64)},
    "lora_B.weight' lacks the other matrix": without(A),
    "lora_A.weight' lacks the other": without(B),
    "are not matrices of rank": put(A=torch.ones(3, 32)),
    r"\(float32, \(8, 32, 1\)\) and .* are not matrices": put(A=torch.ones(8, 32, 1)),
    "complex64, .* are not matrices": put(A=torch.ones(8, 32, dtype=torch.complex64)),
    "'x.lora_A.weight' is not supported": put(**{"x.lora_A.weight": torch.ones(8, 32)}),
    r"q_proj.weight' of shape \(32, 31\), but in base its shape is \(32, 32\)": put(
        A=torch.ones(8, 31)
    ),
    "lora_magnitude_vector' is not supported": put(**{f"{Q}lora_magnitude_vector": torch.ones(32)}),
    "lora_B.bias' is not supported": put(**{f"{Q}lora_B.bias": torch.ones(32)}),
    "lora_A.other.weight' is not supported": put(**{f"{Q}lora_A.other.weight": torch.ones(8, 32)}),
    "'model.norm.weight' is not supported": put(**{"model.norm.weight": torch.ones(32)}),
    "'base_model.model.model.norm.wait' belongs to no parameter of base": put(
        **{"base_model.model.model.norm.wait": torch.ones(32)}
    ),
    "'base_model.model.x.q_proj.lora_A.weight' belongs to no parameter of base": put(
        **{
            "base_model.model.x.q_proj.lora_A.weight": torch.ones(8, 32),
            "base_model.model.x.q_proj.lora_B.weight": torch.ones(32, 8),
        }
    ),
    r"'lm_head.weight' of shape \(65, 32\), but in base its shape is \(64, 32\)": put(
        **{"base_model.model.lm_head.weight": torch.ones(65, 32)}
    ),
    "holds int8, not weights": put(A=torch.ones(8, 32, dtype=torch.int8)),
}


@pytest.mark.parametrize("match", [*CONFIGS, *TENSORS])
def test_unknown_adapter_settings_are_refused(tmp_path, monkeypatch, match):
    monkeypatch.setattr(limits, "PATTERN_SECONDS", 0.5)
    write(tmp_path, "gaussian")
    edit(tmp_path, config={"r": 8})
    edit(tmp_path, tensors=lambda held: grown(held))
    assert opened(tmp_path).notes
    edit(tmp_path, CONFIGS.get(match), TENSORS.get(match))
    refused(match, tmp_path / "adapter", base=tmp_path / "base")


def grown(held):
    """The same matrices with a rank of 8."""
    return {
        key: value.repeat(4, 1) if "lora_A" in key else value.repeat(1, 4)
        for key, value in held.items()
    }


def test_wrong_adapters_and_bases_are_refused(tmp_path):
    write(tmp_path, "plain")
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    refused("base has no adapter_config.json: base= .* goes with an adapter", base, base=base)
    refused("base= goes with the path or Hub id of an adapter, not with NoneType", base=base)
    refused("is an adapter of .*, not a model", adapter, base=adapter)
    refused("nowhere.*: no such file", adapter, base=tmp_path / "nowhere" / "x")
    refused("nowhere.*: no such file", tmp_path / "nowhere" / "x", base=base)
    refused("adapter/holder: no such file", adapter / "holder", base=base)
    assert sr.load(tmp_path / "adapter", base=base).notes == opened(tmp_path).notes
    named = sr.load(adapter / "adapter_model.safetensors", base=base, name="x")
    assert (named.name, named.notes) == ("x", opened(tmp_path).notes)
    (adapter / "adapter_config.json").write_text("[1]")
    refused("adapter_config.json is not a configuration of PEFT", adapter, base=base)


def test_an_adapter_changes_a_matrix_as_it_is_in_memory(tmp_path, monkeypatch):
    write(tmp_path, next(case for case, (kind, _) in CASES.items() if kind == "llama"))
    kept, changed = sr.load(tmp_path / "base"), opened(tmp_path)
    turned_on_loading(monkeypatch, "q_proj.weight")
    turned = opened(tmp_path)
    name = "model.layers.1.self_attn.q_proj.weight"
    product = changed.tensor(name) - kept.tensor(name)
    assert product.count_nonzero()
    assert torch.allclose(turned.tensor(name), kept.tensor(name).T + product)


def test_tied_tensors_are_left_to_peft(tmp_path):
    small_llama(tie_word_embeddings=True).save_pretrained(tmp_path / "tied")
    write(tmp_path, "embedding and head")
    only = {"target_modules": ["embed_tokens"]}
    edit(tmp_path, only, lambda held: {k: v for k, v in held.items() if "embedding" in k})
    said = "embed_tokens.*'model.embed_tokens.weight', which is tied to another parameter of tied"
    refused(said, tmp_path / "adapter", base=tmp_path / "tied")
    write(tmp_path, "embedding and head")
    said = "lm_head.* changes 'lm_head.weight', which is tied to another parameter of tied"
    refused(said, tmp_path / "adapter", base=tmp_path / "tied")


def test_a_base_that_is_pickled_nameless_or_in_memory(tmp_path):
    merged = dict(write(tmp_path, "Conv1D").merge_and_unload().named_parameters())
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    live = type(small_gpt2()).from_pretrained(base)
    kept = {name: value.clone() for name, value in live.named_parameters()}
    weights = sr.load(adapter, base=live)
    for name, value in merged.items():
        assert torch.equal(weights.tensor(name), value)
        assert torch.equal(weights.module().get_parameter(name), value)
        assert torch.equal(live.get_parameter(name), kept[name])
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    refused("pickles are opened only on request", adapter, base=base)
    (base / "config.json").unlink()  # nothing says which matrices are turned but the adapter
    nameless = sr.load(adapter, base=base, allow_pickle=True)
    for name, value in merged.items():
        assert torch.equal(nameless.tensor(name), value)


def test_a_packed_base_is_unpacked(tmp_path):
    weight = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    tensors, means, _ = packing.nf4(weight)
    (tmp_path / "base").mkdir()
    save_file(
        {f"fc1.weight{leaf.removeprefix('weight')}": value for leaf, value in tensors.items()},
        tmp_path / "base" / "model.safetensors",
    )
    write_adapter = {"A": torch.ones(2, 32) / 4, "B": torch.ones(64, 2)}
    (tmp_path / "adapter").mkdir()
    save_file(
        {f"base_model.model.fc1.lora_{s}.weight": value for s, value in write_adapter.items()},
        tmp_path / "adapter" / "adapter_model.safetensors",
    )
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["fc1"]}'
    )
    weights = opened(tmp_path)
    assert torch.equal(weights.tensor("fc1.weight"), means + 1)
    assert (weights["fc1.weight"].packing, weights["fc1.weight"].file_bytes) == ("", None)
    assert any("packed weights" in str(note) for note in weights.notes)


def test_bases_without_a_dense_matrix_are_refused(tmp_path, monkeypatch):
    write(tmp_path, "plain")
    said = "'model.layers.0.mlp.down_proj.weight' of .* is not stored as one dense matrix"
    live = small_llama()
    down = live.model.layers[0].mlp.down_proj
    live.model.layers[0].mlp.down_proj = sr.LinearCSR(down.weight)
    refused(said, tmp_path / "adapter", base=live)
    in_pieces = CheckpointWeights.entries

    def entries(self, name):
        return in_pieces(self, name) * (1 + ("layers.0.mlp.down_proj" in name))

    monkeypatch.setattr(CheckpointWeights, "entries", entries)
    refused(said, tmp_path / "adapter", base=tmp_path / "base")


def test_gguf_arranges_otherwise(tmp_path):
    write(tmp_path, "plain")
    write_gguf(tmp_path / "x.gguf", {"token_embd.weight": (np.ones((2, 32), "f4"), None)}, "odd")
    refused("x.gguf is GGUF, whose matrices", tmp_path / "adapter", base=tmp_path / "x.gguf")


def test_a_merged_model_runs_is_pruned_and_written_by_the_command(tmp_path):
    adapted = write(tmp_path, "trained head")
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = adapted(ids).logits
        variants = [sr.dense(opened(tmp_path))]
        assert torch.allclose(variants[0].module()(ids).logits, expected, atol=1e-4)
    pruned = sr.masked(sr.global_magnitude(opened(tmp_path), 0.5))
    real, _ = sr.analyze_layers(pruned.module(), "x")
    assert real["nonzero"].sum() == pruned.layers()["nonzero"].sum()
    done = command(
        "run", tmp_path / "adapter", "--base", tmp_path / "base", "--out", tmp_path / "out",
        "--write", "study",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "adapter" in (tmp_path / "out" / "study.json").read_text()
