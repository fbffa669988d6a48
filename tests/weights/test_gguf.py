"""GGUF of every architecture of the zoo the format has: the same model as in memory."""

import struct
from contextlib import suppress

import gguf
import numpy as np
import pytest
import torch
import transformers as tf
from helpers import counted, finish, refused, study_of, write_gguf
from mixtures import mixture
from smaller_mixtures import by_hand, keep, logits
from zoo.cases import CASES, GQA, b, d, f, g, h, k, v

import sparsity_report as sr
from sparsity_report.words.sentences import say

# What llama.cpp writes and the zoo, which has one of each kind, lacks.
FURTHER = {
    "starcoder2": lambda: tf.Starcoder2ForCausalLM(tf.Starcoder2Config(**GQA)),
    "nemotron": lambda: tf.NemotronForCausalLM(tf.NemotronConfig(**GQA)),
    "t5": lambda: tf.T5ForConditionalGeneration(
        tf.T5Config(
            d_model=d, d_kv=k, d_ff=f, num_layers=b, num_heads=h, vocab_size=v,
            feed_forward_proj="gated-gelu",
        )
    ),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**GQA)),
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(tie_word_embeddings=True, **GQA)),
}  # fmt: skip
WHOLE = [
    *(pytest.param(c.gguf, c.build, id=c.name) for c in CASES if c.gguf and not c.from_names),
    *(pytest.param(name, build, id=f"{name}, another") for name, build in FURTHER.items()),
]
FROM_NAMES = [pytest.param(c, id=c.name) for c in CASES if c.from_names]


def metadata(writer, config):
    """What llama.cpp's converter writes about a model, as far as it says how large it is."""

    def has(*names):
        return next((n for n in (getattr(config, name, None) for name in names) if n), None)

    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(has("max_position_embeddings", "n_positions") or 1024)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(has("intermediate_size", "d_ff") or 4 * d)
    writer.add_vocab_size(v)
    writer.add_token_list([f"t{i}" for i in range(v)])
    writer.add_pad_token_id(0)
    for name, add in {
        "num_attention_heads": writer.add_head_count,
        "num_key_value_heads": writer.add_head_count_kv,
        "num_experts_per_tok": writer.add_expert_used_count,
        "moe_intermediate_size": writer.add_expert_feed_forward_length,
        "shared_expert_intermediate_size": writer.add_expert_shared_feed_forward_length,
        "conv_kernel": writer.add_ssm_conv_kernel,
        "state_size": writer.add_ssm_state_size,
        "time_step_rank": writer.add_ssm_time_step_rank,
    }.items():
        if isinstance(getattr(config, name, None), int):
            add(getattr(config, name))
    if experts := has("num_local_experts", "num_experts", "n_routed_experts"):
        writer.add_expert_count(experts)
    if config.model_type == "mamba":
        writer.add_ssm_inner_size(config.intermediate_size)
    if width := has("head_dim", "d_kv"):
        writer.add_key_length(width)
        writer.add_value_length(width)
    writer.add_layer_norm_eps(1e-5)
    writer.add_layer_norm_rms_eps(1e-5)


def as_llama_cpp_keeps_it(architecture, name, tensor):
    """What llama.cpp's converter does to a tensor, written out."""
    if architecture == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
        heads = h if "attn_q" in name else g
        halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, -1)
        return halves.swapaxes(1, 2).reshape(tensor.shape)
    inner = name.startswith("blk") and "norm" not in name and tensor.ndim == 2
    if architecture == "gpt2" and inner:
        return tensor.T
    if architecture in {"gemma2", "gemma3", "nemotron"} and name.endswith("norm.weight"):
        return tensor + 1
    if architecture == "bloom" and "attn_qkv" in name:
        by_head = tensor.reshape(h, 3, k, *tensor.shape[1:])
        return by_head.swapaxes(0, 1).reshape(tensor.shape)
    if name.endswith("ssm_a"):
        return -np.exp(tensor)
    if name.endswith("ssm_conv1d.weight"):
        return tensor.squeeze(1)
    return tensor.squeeze(0) if "gate_inp_shexp" in name else tensor


def tensors(model, architecture):
    """Yield what llama.cpp's converter writes: its names and arrays."""
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(numbers[architecture], 8)
    for name, parameter in model.named_parameters():
        array, (stem, _, leaf) = parameter.detach().numpy(), name.rpartition(".")
        if leaf.startswith(("gate_up_proj", "down_proj")) and stem.endswith("experts"):
            yield from experts(f"blk.{name.split('.')[2]}", leaf, array, architecture)
        elif leaf in {"weight", "bias"}:
            target = names.get_name(stem) or names.get_name(stem.removeprefix("transformer."))
            yield f"{target}.{leaf}", array
        else:
            yield names.get_name(name), array


def experts(block, leaf, array, architecture):
    """The experts of a block: gate and up apart, of GPT-OSS interleaved and the inputs first."""
    word, kind = leaf.partition("_proj")[0], "bias" if leaf.endswith("bias") else "weight"
    if architecture == "gpt-oss" and kind == "weight":
        array = array.swapaxes(-1, -2)
    if word == "down":
        yield f"{block}.ffn_down_exps.{kind}", array
        return
    interleaved = (array[:, 1::2], array[:, ::2])
    for name, half in zip(
        ("up", "gate"),
        interleaved if architecture == "gpt-oss" else reversed(np.split(array, 2, axis=1)),
        strict=True,
    ):
        yield f"{block}.ffn_{name}_exps.{kind}", half


def write(path, model, architecture, kind=None, **split):
    writer = gguf.GGUFWriter(path, architecture, **split)
    metadata(writer, model.config)
    for name, array in tensors(model, architecture):
        data = np.ascontiguousarray(as_llama_cpp_keeps_it(architecture, name, array))
        if kind and data.ndim == 2 and data.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] == 0:
            writer.add_tensor(name, gguf.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, data)
    finish(writer)


def shaken(model):
    """Every value a little off its start, so that norms and biases differ from one another."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
            parameter.view(-1)[::5] = 0
    return model.eval()


@pytest.mark.parametrize(("architecture", "build"), WHOLE)
def test_file_and_module_agree(tmp_path, architecture, build):
    torch.manual_seed(0)
    model = shaken(build())
    path = tmp_path / "model.gguf"
    write(path, model, architecture)
    weights = sr.load(path, name="x")
    # llama.cpp has one architecture for Llama and Mistral, which differ in their windows only.
    name = type(model).__name__.replace("Mistral", "Llama")
    assert weights.architecture == name
    assert not weights.notes
    state = model.state_dict()
    for parameter in weights.stored:
        assert torch.allclose(weights.tensor(parameter.name), state[parameter.name], atol=1e-6)
    memory = study_of(sr.load(model, name="x"))
    assert counted(study_of(weights).layers).equals(counted(memory.layers))
    loaded = weights.module().state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.allclose(loaded[key], state[key], atol=1e-6) for key in state)


@pytest.mark.parametrize("kind", ["Qwen2Moe", "Qwen3Moe"])
def test_mixtures_without_experts_run_like_those_built_so(tmp_path, kind):
    write(tmp_path / "model.gguf", mixture(kind, vocab_size=v), kind.lower())
    weights = sr.load(tmp_path / "model.gguf")
    kept = keep(weights)
    fewer = sr.without_experts(kept)
    expected = logits(by_hand(weights.module(), kept.kept, kind))
    assert torch.equal(logits(fewer.module()), expected)
    again = sr.load(sr.write_checkpoint(fewer, tmp_path / "out.gguf"))
    assert torch.equal(logits(again.module()), expected)


@pytest.mark.parametrize("case", [c for c in CASES if c.gguf in {"qwen2moe", "qwen3moe"}])
def test_experts_of_a_file_are_calibrated_as_those_of_its_module(tmp_path, case):
    """Tokens and saliency are those of the same model as safetensors."""
    torch.manual_seed(0)
    model = shaken(case.build())
    write(tmp_path / "model.gguf", model, case.gguf)
    ids = torch.arange(64) * 7 % model.config.vocab_size
    weights = sr.load(tmp_path / "model.gguf")
    weights.module().save_pretrained(tmp_path / "safetensors")
    kept = [
        sr.reap(each, sr.calibrate(each, ids, window=16), keep=0.5)
        for each in (weights, sr.load(tmp_path / "safetensors"))
    ]
    assert kept[0].kept == kept[1].kept
    tokens, due = (each.use[["tokens", "saliency"]].astype(float).fillna(0) for each in kept)
    assert np.allclose(tokens, due, rtol=1e-4)
    assert due["tokens"].sum() > 0


@pytest.mark.parametrize("case", FROM_NAMES)
def test_files_unknown_to_transformers_are_counted_from_names(tmp_path, case):
    torch.manual_seed(0)
    model = shaken(case.build())
    path = tmp_path / "model.gguf"
    write(path, model, case.gguf)
    weights = sr.load(path)
    assert str(weights.notes[0]).startswith(
        f"groups of this {case.gguf} file follow from tensor names alone"
    )
    study = sr.compare(sr.dense(weights))
    groups = study.groups.set_index("group")
    assert groups["total"].to_dict() == case.groups
    assert sum(p.total for p in weights.prunable) == case.prunable
    assert study.unclassified == ()
    totals, memory = (s.totals.loc[0] for s in (study, sr.compare(sr.dense(model))))
    assert totals["flops_per_token"] == 2 * case.flops
    assert totals["active_total"] == memory["active_total"]
    written = [as_llama_cpp_keeps_it(case.gguf, *pair) for pair in tensors(model, case.gguf)]
    assert totals["nonzero"] == sum(np.count_nonzero(array) for array in written)
    assert totals["prunable_nonzero"] == memory["prunable_nonzero"]
    with pytest.raises(sr.SparsityReportError, match="can be counted but not run"):
        sr.dense(weights).module()


def test_quantized_files_count_what_their_blocks_stand_for(tmp_path):
    torch.manual_seed(0)
    (case,) = (case for case in CASES if case.name.startswith("Llama"))
    path = tmp_path / "model.gguf"
    write(path, case.build(), "llama", gguf.GGMLQuantizationType.Q4_0)
    weights = sr.load(path, name="x")
    assert weights.notes[0] == say("note.gguf_blocks", kinds=["Q4_0"])
    values = gguf.GGUFReader(path).tensors
    zeros = sum(
        int((gguf.dequantize(t.data, t.tensor_type) == 0).sum())
        for t in values
        if t.tensor_type == gguf.GGMLQuantizationType.Q4_0 and t.name.startswith("blk")
    )
    prunable = sr.compare(sr.dense(weights)).totals.loc[0]
    assert prunable["prunable_total"] - prunable["prunable_nonzero"] == zeros > 0
    real, _ = sr.analyze_layers(sr.dense(weights).module(), "Dense")
    assert real["nonzero"].tolist() == sr.dense(weights).layers()["nonzero"].tolist()


def test_the_reader_and_ours_agree_on_a_real_header(smollm2_path):
    from sparsity_report.weights.sources.gguf_files import read_header

    reader = gguf.GGUFReader(smollm2_path)
    theirs = {
        t.name: (tuple(int(n) for n in reversed(t.shape)), t.tensor_type.name, int(t.data_offset))
        for t in reader.tensors
    }
    facts, ours = read_header(smollm2_path)
    assert facts["general.architecture"] == "llama"
    assert facts["llama.block_count"] == reader.fields["llama.block_count"].contents() == 30
    assert {
        key: (entry.shape, entry.values.packing or "F32", entry.values.offset)
        for key, entry in ours.items()
    } == theirs


def built(word):
    torch.manual_seed(0)
    (case,) = (case for case in CASES if case.name.startswith(word))
    return case, shaken(case.build())


@pytest.mark.parametrize("first", [False, True], ids=["", "first without tensors"])
@pytest.mark.parametrize("word", ["Llama", "StableLM", "Qwen2-MoE"])
def test_any_shard_opens_the_whole_model(tmp_path, word, first):
    case, model = built(word)
    write(tmp_path / "whole.gguf", model, case.gguf)
    whole = sr.load(tmp_path / "whole.gguf", name="x")
    folder = tmp_path / "shards"
    folder.mkdir()
    write(folder / "x.gguf", model, case.gguf, split_max_tensors=7, small_first_shard=first)
    files = sorted(folder.iterdir())
    assert len(files) >= 3
    assert sr.load(files[1]).name == "x.gguf"
    layers = study_of(whole).layers
    for path in (folder, files[0], files[-1]):
        weights = sr.load(path, name="x")
        assert (weights.architecture, weights.notes) == (whole.architecture, ())
        assert study_of(weights).layers.equals(layers)
    state = sr.dense(whole).module().state_dict()
    shards = sr.dense(weights).module().state_dict()
    assert shards.keys() == state.keys()
    assert all(torch.equal(shards[key], state[key]) for key in state)


def test_biases_in_later_shards_are_known(tmp_path):
    torch.manual_seed(0)
    model = shaken(tf.StableLmForCausalLM(tf.StableLmConfig(use_qkv_bias=True, **GQA)))
    write(tmp_path / "x.gguf", model, "stablelm", split_max_tensors=7, small_first_shard=True)
    weights = sr.load(tmp_path, name="x")
    assert not weights.notes
    memory = study_of(sr.load(model, name="x"))
    assert counted(study_of(weights).layers).equals(counted(memory.layers))


def write_shard(folder, number, count, names, stem="x", total=2, **facts):
    """Write one shard of a model by hand, of ones."""
    path = folder / f"{stem}-{number:05}-of-{count:05}.gguf"
    tensors = {name: (np.ones((4, 32), np.float32), None) for name in names}
    counts = {"split.no": number - 1, "split.count": count, **facts}
    write_gguf(
        path, tensors, "mystery", uint16=[*counts.items()], int32=("split.tensors.count", total)
    )
    return path


A, B, C = (f"blk.{number}.ffn_up.weight" for number in range(3))


def test_sharded_models_in_one_folder_are_distinguished(tmp_path):
    for stem, names in {"x": (A, B), "y": (A, C)}.items():
        for number, name in enumerate(names, start=1):
            write_shard(tmp_path, number, 2, [name], stem)
    refused("has 2 models; name the file of one, as in .*/x-00001-of-00002.gguf", tmp_path)
    assert [m.name for m in sr.load(tmp_path / "y-00002-of-00002.gguf").modules] == [
        "blk.0.ffn_up", "blk.2.ffn_up",
    ]  # fmt: skip


def test_missing_or_contradictory_shards_are_refused(tmp_path):
    first, second = write_shard(tmp_path, 1, 2, [A]), write_shard(tmp_path, 2, 2, [B])
    assert sr.load(first)[B].total == 128
    for path in (first, tmp_path):
        second.rename(tmp_path / "away")
        refused("x.gguf is in 2 shards, and 1 of them are missing, first x-00002-of-00002", path)
        (tmp_path / "away").rename(second)
    first.rename(tmp_path / "away")
    refused("first x-00001-of-00002.gguf", tmp_path)
    (tmp_path / "away").rename(first)

    write_shard(tmp_path, 2, 2, [B, C], total=3)
    refused("00002.gguf: split.tensors.count is 3 but 2 in x-00001-.*two models", first)
    write_shard(tmp_path, 2, 2, [A])
    refused(f"tensor '{A}' is in .*x-00001-of-00002.gguf too, so they are shards of two", first)
    write_shard(tmp_path, 2, 2, [B, C])
    refused("hold 3 tensors, but split.tensors.count is 2", first)
    write_shard(tmp_path, 2, 2, [])
    refused("hold 1 tensors, but split.tensors.count is 2", first)
    write_gguf(second, {B: (np.ones((4, 32), np.float32), None)}, "other")
    refused("split.no is 0 and split.count 1, but its name means 1 and 2", first)
    write_shard(tmp_path, 2, 2, [B], **{"split.no": 0})
    refused("split.no is 0 and split.count 2, but its name means 1 and 2", second)
    write_shard(tmp_path, 2, 2, [B])
    write_shard(tmp_path, 1, 2, [A], **{"split.count": 3})
    refused("split.no is 0 and split.count 3, but its name means 0 and 2", second)


def test_a_shard_of_another_architecture_is_refused(tmp_path):
    first, second = write_shard(tmp_path, 1, 2, [A]), write_shard(tmp_path, 2, 2, [B])
    second.write_bytes(second.read_bytes().replace(b"mystery", b"history"))
    refused("general.architecture is history but mystery in x-00001-of-00002.gguf", first)


def test_shards_need_the_names_of_llama_cpp(tmp_path):
    path = write_shard(tmp_path, 1, 2, [A]).rename(tmp_path / "x.gguf")
    refused("x.gguf is one of 2 shards of a model; give each the name", path)
    for name in ("x-00003-of-00002.gguf", "x-00000-of-00000.gguf", "x-1-of-2.gguf"):
        path = path.rename(tmp_path / name)
        refused("is one of 2 shards of a model; give each the name", path)
    write_gguf(path, {A: (np.ones((4, 32), np.float32), None)}, "mystery")
    assert sr.load(path)[A].total == 128
    merged = write_shard(tmp_path, 1, 1, [A], **{"split.count": 0}).rename(path)
    assert sr.load(merged)[A].total == 128
    huge = write_shard(tmp_path, 1, 99999, [A], **{"split.count": 65535})
    refused("is in 99999 shards, and 99998 of them are missing", huge)


@pytest.mark.parametrize("word", ["Gemma 2", "Llama"])  # the latter's rows are rearranged
def test_bfloat16_is_counted_in_two_bytes(tmp_path, word):
    case, model = built(word)
    model = model.to(torch.bfloat16).float()
    path = tmp_path / "model.gguf"
    write(path, model, case.gguf, gguf.GGMLQuantizationType.BF16)
    weights = sr.load(path, name="x")
    assert not weights.notes
    state, kinds = model.state_dict(), {p.name: p.dtype for p in weights.stored}
    halves = [name for name, kind in kinds.items() if kind == "bfloat16"]
    assert {p.name for p in weights.prunable} <= {*halves}
    for name in halves:
        assert weights.tensor(name).dtype == torch.bfloat16
        assert torch.equal(weights.tensor(name).float(), state[name])
    layers = sr.compare(sr.dense(weights)).layers.set_index("module_name")
    name = "model.layers.0.mlp.up_proj"
    assert layers.loc[name, "stored_bytes"] == 2 * state[f"{name}.weight"].numel()
    loaded = sr.dense(weights).module().state_dict()
    assert all(torch.equal(loaded[key].float(), state[key]) for key in halves)


def decoded(kind):
    with suppress(NotImplementedError):
        gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        return kind.name not in {"F32", "F16", "BF16"}
    return False


DECODED = [*filter(decoded, gguf.GGMLQuantizationType)]


@pytest.mark.parametrize("kind", DECODED, ids=[kind.name for kind in DECODED])
def test_blocks_are_what_the_library_decodes(tmp_path, kind):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(8, 512)).astype(np.float32)
    values[:, ::3] = 0
    try:
        raw = gguf.quantize(values, kind)
    except NotImplementedError:
        # Below 64 any byte is part of a scale that is a number.
        size = 512 // gguf.GGML_QUANT_SIZES[kind][0] * gguf.GGML_QUANT_SIZES[kind][1]
        raw = np.frombuffer(rng.bytes(8 * size), np.uint8).reshape(8, -1) & 0x3F
    path = tmp_path / "x.gguf"
    write_gguf(path, {A: (raw, kind)}, "mystery")
    expected = gguf.dequantize(raw, kind)
    weights = sr.load(path)
    assert np.array_equal(weights.tensor(A).numpy(), expected)
    totals = sr.compare(sr.dense(weights)).totals.loc[0]
    assert totals["nonzero"] == np.count_nonzero(expected)
    assert weights.notes[1] == say("note.gguf_blocks", kinds=[kind.name])


def test_types_that_cannot_be_decoded_are_named(tmp_path):
    path = tmp_path / "x.gguf"
    write_gguf(path, {A: (np.ones((8, 64), np.float32), None)}, "mystery")
    good = path.read_bytes()
    shape = struct.pack("<2Q", 64, 8)
    for number in (36, 2**32 - 1, 9):
        kinds = (shape + struct.pack("<I", old) for old in (0, number))
        path.write_bytes(good.replace(*kinds))
        if number != 9:
            refused(f"tensor '{A}' is of type {number}, which is not known", path)
    with pytest.raises(sr.SparsityReportError, match=r"of type Q8_1 cannot be deq.*; update the"):
        sr.compare(sr.dense(sr.load(path)))


def test_sizes_of_blocks_are_those_of_the_library():
    from gguf import GGML_QUANT_SIZES

    from sparsity_report.weights.sources.gguf_files import TYPES

    library = {kind.value: (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {number: TYPES.get(number) for number in library} == library


def test_a_scale_beside_blocks_is_not_left_out(tmp_path):
    path, kind = tmp_path / "x.gguf", gguf.GGMLQuantizationType.TQ2_0
    scale = A.replace("weight", "scale"), (np.ones(1, np.float32), None)
    tensors = {A: (np.ones((8, 256), np.float32), kind)}
    write_gguf(path, tensors | dict([scale]), "mystery")
    refused(r"scale' multiplies the blocks \(TQ2_0\) of 'blk.0.ffn_up.weight'", path)
