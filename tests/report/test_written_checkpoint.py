"""Checkpoints that are written: equal to the masked model, by transformers and bit by bit."""

import json
import shutil

import numpy as np
import pytest
import structural
import torch
import transformers
from helpers import small_llama, swept, turned_on_loading
from packing import packed_llama
from safetensors.torch import load_file, save_file

import sparsity_report as sr
from sparsity_report.errors import SparsityReportError

IDS = torch.arange(2, 12)[None]

POLICIES = {
    "magnitude": lambda w: sr.global_magnitude(w, 0.5),
    "layerwise": lambda w: sr.layerwise_magnitude(w, 0.3),
    "random": lambda w: sr.random_unstructured(w, 0.4, seed=3), "2:4": lambda w: sr.n_m(w, 2, 4),
    "wanda": lambda w: sr.wanda(w, 0.5, calibrated(w)),
    "wanda-2:4": lambda w: sr.wanda(w, None, calibrated(w), n_m=(2, 4)),
    "owl": lambda w: sr.wanda(w, 0.5, calibrated(w), allocation="owl"),
    "masks": lambda w: sr.import_mask(w, masks(w)), "zeros": sr.existing_zeros,
}  # fmt: skip


def calibrated(weights):
    ids = torch.randint(4, weights.configuration()["vocab_size"], (64,))
    return sr.calibrate(weights, ids, window=16)


def masks(weights):
    generator = np.random.default_rng(1)
    return {p.name: generator.random(p.shape) < 0.7 for p in weights.prunable}


def logits(model):
    model.eval()
    with torch.no_grad():
        given = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
        return next(iter(model(input_ids=IDS, **given).values()))


def opened(folder, architecture, **options):
    model, info = getattr(transformers, architecture).from_pretrained(
        folder, output_loading_info=True, **options
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model


def headers(folder):
    """Return the bytes before the values of each file."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        raw = file.read_bytes()
        found[file.name] = raw[: 8 + int.from_bytes(raw[:8], "little")]
    return found


def tensors(folder):
    return {
        k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()
    }


def as_bytes(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8)


def same_as_masked(source, pruning, folder, **options):
    """Write a pruning; compare it with the masked module and with the files of its source."""
    variant = sr.masked(pruning)
    assert sr.write_checkpoint(variant, folder) == folder
    written = opened(folder, pruning.weights.architecture, **options)
    assert torch.equal(logits(written), logits(variant.module()))
    changed = {e.key for n in pruning.changed for e in pruning.weights.entries(n)}
    before, after = tensors(source), tensors(folder)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert after[key].dtype == tensor.dtype
        if key not in changed:
            assert torch.equal(as_bytes(after[key]), as_bytes(tensor)), key
        else:
            is_kept = after[key].float() != 0
            assert torch.equal(after[key].float(), tensor.float() * is_kept)
    assert headers(folder) == headers(source)
    assert (folder / "config.json").read_bytes() == (source / "config.json").read_bytes()
    again = sr.dense(sr.load(folder)).layers()
    assert again["nonzero"].tolist() == variant.layers()["nonzero"].tolist()


@pytest.mark.parametrize("policy", swept(POLICIES, 3))
def test_every_policy_gives_the_masked_model(policy, tmp_path):
    weights = sr.load()
    same_as_masked(weights.path, POLICIES[policy](weights), tmp_path / "out")


KINDS = {
    "gpt2": ["magnitude", "2:4", "wanda", "masks"],
    "mixtral": ["magnitude", "wanda", "random"],
    "bert": ["magnitude"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_transposed_matrices_experts_and_shards(kind, tmp_path):
    torch.manual_seed(0)
    source = tmp_path / "source"
    structural.MODELS[kind]().save_pretrained(source, max_shard_size="60KB")
    assert len(headers(source)) > 2
    for policy in KINDS[kind]:
        weights = sr.load(source)
        same_as_masked(source, POLICIES[policy](weights), tmp_path / policy)
        index = "model.safetensors.index.json"
        assert (tmp_path / policy / index).read_bytes() == (source / index).read_bytes()


@pytest.mark.parametrize(
    ("dtype", "tied"), [("float16", True), ("bfloat16", False), ("float64", True)]
)
def test_dtypes_and_tied_heads(dtype, tied, tmp_path):
    source = tmp_path / "source"
    small_llama(tie_word_embeddings=tied).to(getattr(torch, dtype)).save_pretrained(source)
    weights = sr.load(source)
    same_as_masked(source, sr.global_magnitude(weights, 0.5), tmp_path / "out", dtype="auto")
    assert ("lm_head.weight" in tensors(tmp_path / "out")) is not tied


def test_float8_bits_of_kept_weights_stay(tmp_path):
    source = tmp_path / "source"
    small_llama().save_pretrained(source)
    file = source / "model.safetensors"
    given = {
        key: t.to(torch.float8_e4m3fn) if "proj" in key else t for key, t in load_file(file).items()
    }
    save_file(given, file, metadata={"format": "pt"})
    pruning = sr.global_magnitude(sr.load(source), 0.5)
    sr.write_checkpoint(sr.masked(pruning), tmp_path / "out")
    assert headers(tmp_path / "out") == headers(source)
    for name in pruning.changed:
        after = tensors(tmp_path / "out")[name]
        kept = torch.from_numpy(pruning.mask(name))
        assert torch.equal(after.view(torch.uint8), given[name].view(torch.uint8) * kept)


def test_tensors_that_transformers_turns_on_loading(tmp_path, monkeypatch):
    source = tmp_path / "source"
    small_llama().save_pretrained(source)
    turned_on_loading(monkeypatch, "mlp.gate_proj.weight")
    file = source / "model.safetensors"
    given = load_file(file)
    save_file(
        {k: v.T.contiguous() if "gate_proj" in k else v for k, v in given.items()},
        file, metadata={"format": "pt"},
    )  # fmt: skip
    masked = sr.masked(sr.global_magnitude(sr.load(source), 0.5))
    with pytest.raises(SparsityReportError, match=r"gate_proj.weight, which .* rearranges"):
        sr.write_checkpoint(masked, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # Without pruning, the files are copied.
    sr.write_checkpoint(sr.dense(sr.load(source)), tmp_path / "copy")
    assert (tmp_path / "copy" / file.name).read_bytes() == file.read_bytes()


def test_card_and_data_files(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(sr.load().path, source)
    (source / "modeling.py").write_text("raise SystemExit")
    (source / "LICENSE").write_text("free")
    (source / "notes.json").symlink_to("/etc/hostname")
    pruning = sr.global_magnitude(sr.load(source), 0.5)
    folder = sr.write_checkpoint(sr.masked(pruning), tmp_path / "out", base_model="me/demo")
    names = {file.name for file in folder.iterdir()}
    assert {"LICENSE", "tokenizer.json", "README.md", "config.json"} <= names
    assert not names & {"modeling.py", "notes.json", "loss.csv"}
    card = (folder / "README.md").read_text()
    from huggingface_hub import ModelCard

    data = ModelCard(card).data
    assert (data.base_model, data.license) == ("me/demo", "apache-2.0")
    assert {"pruned", "sparsity-report"} <= set(data.tags)
    zeros = pruning.pruned
    assert f"{zeros:,}".replace(",", "\u202f") in card.replace(" ", "\u202f")
    assert sr.__version__ in card
    assert "global magnitude" in card


def unpacked(source, folder, **options):
    """Write a model unpacked; compare it with what its source stands for, values and logits."""
    weights = sr.load(source, **options)
    sr.write_checkpoint(sr.dense(weights), folder, unpack=True)
    written = opened(folder, weights.architecture, dtype="auto")
    again = sr.load(folder)
    assert not any(p.packing for p in again.parameters)
    for p in weights.stored:
        assert torch.equal(again.tensor(p.name).float(), weights.tensor(p.name).float()), p.name
    assert torch.equal(logits(written.float()), logits(weights.module().float()))
    config = json.loads((folder / "config.json").read_text())
    assert not {"quantization_config", "compression_config", "quantization"} & config.keys()
    return weights, again


WAYS = [
    "gptq-4-v1-shuffled", "awq", "pack-quantized-4-zero", "sparse-bitmask", "sparse-24",
    "fp8-blocks", "nvfp4-modelopt", "mxfp4", "nf4", "int8", "mlx-4",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_packed_weights_are_unpacked(way, tmp_path):
    source, plain = packed_llama(tmp_path, way)
    weights, again = unpacked(source, tmp_path / "out")
    means, after = load_file(plain / "model.safetensors"), tensors(tmp_path / "out")
    assert means.keys() == after.keys()
    # A pruned packed weight is written unpacked, and all the others with it.
    pruning = sr.global_magnitude(weights, 0.5)
    folder = sr.write_checkpoint(sr.masked(pruning), tmp_path / "pruned")
    written = opened(folder, weights.architecture, dtype="auto")
    assert torch.equal(logits(written.float()), logits(sr.masked(pruning).module()))
    # Without pruning, packed weights stay as they are.
    copy = sr.write_checkpoint(sr.dense(weights), tmp_path / "copy")
    assert (copy / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert again.name


def test_bitmask_files_keep_their_dtype(tmp_path):
    source, _ = packed_llama(tmp_path, "sparse-bitmask")
    file = source / "model.safetensors"
    given = {
        key: t.bfloat16() if t.is_floating_point() else t for key, t in load_file(file).items()
    }
    save_file(given, file, metadata={"format": "pt"})
    unpacked(source, tmp_path / "out")
    assert {t.dtype for t in tensors(tmp_path / "out").values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


def test_real_gguf_is_pruned_without_unpacking_it_first(smollm2_path, tmp_path):
    weights = sr.load(smollm2_path)
    pruning = sr.global_magnitude(weights, 0.5)
    folder = sr.write_checkpoint(sr.masked(pruning), tmp_path / "out")
    written = opened(folder, "LlamaForCausalLM", dtype="auto")
    assert torch.equal(logits(written), logits(sr.masked(pruning).module()))
    text = "The quick brown fox"
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert ids == weights.tokenizer()(text)["input_ids"]


@pytest.mark.parametrize("kind", ["mixtral", "gpt2", "bert"])
def test_modules_and_pickles(kind, tmp_path):
    torch.manual_seed(0)
    model = structural.MODELS[kind]().eval()
    pruning = sr.layerwise_magnitude(sr.load(model), 0.5)
    folder = sr.write_checkpoint(sr.masked(pruning), tmp_path / "module")
    expected = logits(sr.masked(pruning).module())
    # Products of experts in another layout may differ in their last bit.
    written = opened(folder, type(model).__name__, dtype="auto")
    torch.testing.assert_close(logits(written), expected)
    source = tmp_path / "pickle"
    model.save_pretrained(source)
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    weights = sr.load(source, allow_pickle=True)
    sr.write_checkpoint(sr.masked(sr.layerwise_magnitude(weights, 0.5)), tmp_path / "out")
    written = opened(tmp_path / "out", type(model).__name__, dtype="auto")
    torch.testing.assert_close(logits(written), expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_merged_adapter(tmp_path):
    peft = pytest.importorskip("peft")
    small_llama().save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    peft.get_peft_model(small_llama(), config).save_pretrained(tmp_path / "adapter")
    weights = sr.load(tmp_path / "adapter", base=tmp_path / "base")
    pruning = sr.global_magnitude(weights, 0.5)
    with pytest.raises(SparsityReportError, match="inside the model"):
        sr.write_checkpoint(sr.masked(pruning), tmp_path / "base" / "out")
    folder = sr.write_checkpoint(sr.masked(pruning), tmp_path / "out")
    written = opened(folder, "LlamaForCausalLM")
    assert torch.equal(logits(written), logits(sr.masked(pruning).module()))


def test_neighbors_of_a_single_file_are_not_copied(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(sr.load().path / "model.safetensors", source / "mine.safetensors")
    (source / "private.txt").write_text("private")
    weights = sr.load(source / "mine.safetensors")
    pruning = sr.global_magnitude(weights, 0.5)
    folder = sr.write_checkpoint(sr.masked(pruning), tmp_path / "out")
    assert {file.name for file in folder.iterdir()} == {"README.md", "model.safetensors"}
    for name in pruning.changed:
        due = weights.array(name) * pruning.mask(name)
        np.testing.assert_array_equal(tensors(folder)[name], due)
