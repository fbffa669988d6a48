"""Tokenizers open as transformers opens them, and nothing that lies beside them is ever run."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import gguf
import pytest
import tokenizers
import torch
import transformers
from helpers import need, small_llama, swept, write_gguf
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

import sparsity_report as sr
from sparsity_report.files.package_data import DEMO
from sparsity_report.untrusted import limits
from sparsity_report.weights.anatomy import meta_model
from sparsity_report.weights.loading import open_to_count

TEXT = (DEMO / "eval.txt").read_text(encoding="utf-8")[:3000]
WORDS = "Hello world, def f(x): return x_1 + naïve 漢字 \n\n\t<s> and more. " * 40
CODE = ("tokenization_evil.py", "modeling_evil.py", "configuration_evil.py", "sparse_evil.py")
NAMED = {
    "AutoConfig": "configuration_evil.EvilConfig", "AutoModel": "modeling_evil.EvilModel",
    "AutoModelForCausalLM": "modeling_evil.EvilModel",
    "AutoTokenizer": ["tokenization_evil.EvilTokenizer", "tokenization_evil.EvilTokenizer"],
}  # fmt: skip


def trained(kind):
    """A small tokenizer of a kind, trained here."""
    if kind == "unigram":
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=200, unk_token="<unk>", special_tokens=["<unk>", "<s>"], show_progress=False
        )
    else:
        tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.decoder = decoders.BPEDecoder()
        trainer = trainers.BpeTrainer(
            vocab_size=60, special_tokens=["<unk>", "<s>"], limit_alphabet=40, show_progress=False
        )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def tell(file, **told):
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({**known, **told}), encoding="utf-8")


@pytest.fixture
def clean(tmp_path):
    """A Llama with a tokenizer of its own, and no code."""
    folder = tmp_path / "clean"
    small_llama().save_pretrained(folder)
    trained("bpe").save(str(folder / "tokenizer.json"))
    return folder


def plant(folder, marker):
    """Put code beside a checkpoint, named wherever transformers looks for some."""
    folder.mkdir(exist_ok=True)
    spell = f"open({str(marker)!r}, 'a').write(__file__ + chr(10))\n"
    classes = "import transformers\n" + "".join(
        f"class Evil{kind}(transformers.{base}): model_type = 'evil'\n"
        for kind, base in {
            "Config": "LlamaConfig", "Model": "LlamaForCausalLM",
            "Tokenizer": "PreTrainedTokenizerFast", "": "LlamaConfig",
        }.items()
    )  # fmt: skip
    (folder / "custom_generate").mkdir()
    (folder / "additional_chat_templates").mkdir()
    for name in (*CODE, "custom_generate/generate.py", "__init__.py", "conftest.py"):
        (folder / name).write_text(spell + classes)
    template = f"{{{{ cycler.__init__.__globals__.os.system('echo jinja >> {marker}') }}}}"
    for name in ("chat_template.jinja", "additional_chat_templates/other.jinja"):
        (folder / name).write_text(template)
    tell(
        folder / "config.json", auto_map=NAMED, attn_implementation="evil/kernel",
        quantization_config={
            "quant_method": "compressed-tensors",
            "sparsity_config": {"format": f"{folder / 'sparse_evil.py'}:Evil"},
        },
    )  # fmt: skip
    tell(
        folder / "tokenizer_config.json", auto_map={"AutoTokenizer": NAMED["AutoTokenizer"]},
        tokenizer_class="EvilTokenizer", chat_template=template,
    )  # fmt: skip
    tell(folder / "processor_config.json", auto_map={"AutoProcessor": "modeling_evil.EvilModel"})
    tell(folder / "generation_config.json", auto_map=NAMED, custom_generate="evil")


@pytest.fixture
def planted(clean, tmp_path):
    folder, marker = tmp_path / "planted", tmp_path / "marker"
    shutil.copytree(clean, folder)
    plant(folder, marker)
    return folder, marker


@pytest.fixture(params=["y", None], ids=["yes", "closed"])
def asked(request, monkeypatch):
    """What is asked of the user, who says yes to everything or is not there."""
    questions = []

    def answer(question=""):
        questions.append(question)
        if request.param is None:
            raise EOFError
        return request.param

    monkeypatch.setattr("builtins.input", answer)
    return questions


def refused(match, folder):
    """Expect that a tokenizer is refused in one line, which says what to do."""
    with pytest.raises(sr.SparsityReportError, match=match) as caught:
        sr.load(folder).tokenizer()
    assert str(caught.value).endswith("files there, or pass tokenizer= in Python")


def same(one, other):
    return one(WORDS)["input_ids"] == other(WORDS)["input_ids"] and len(one(WORDS)["input_ids"])


def test_no_code_beside_a_checkpoint_runs(planted, clean, asked, tmp_path):
    folder, marker = planted
    assert open_to_count(folder).total == sr.load(folder).total
    assert sr.load(folder / "model.safetensors").architecture == "LlamaForCausalLM"
    weights = sr.load(folder)
    module, tokenizer = weights.module(), weights.tokenizer()
    assert type(module) is transformers.LlamaForCausalLM
    assert type(module).__module__.startswith("transformers.models")
    stored = load_file(folder / "model.safetensors")
    assert all(stored[name].equal(value) for name, value in module.state_dict().items())
    assert same(tokenizer, AutoTokenizer.from_pretrained(clean))
    assert tokenizer.name_or_path == str(folder)
    study = sr.compare(sr.dense(weights))
    quality = sr.perplexity(sr.dense(weights), TEXT)
    expected = sr.perplexity(sr.dense(sr.load(clean)), TEXT)
    assert quality["perplexity"].tolist() == expected["perplexity"].tolist()
    sr.sensitivity(weights, 0.5, by="group", text=TEXT)
    sr.write_report(study.with_measured(quality=quality), tmp_path / "report.html")
    assert asked == []
    assert not marker.exists(), marker.read_text()


@pytest.mark.parametrize("model_type", swept(["evil", "llama"], 2))
def test_no_code_runs_when_standard_input_says_yes(planted, tmp_path, model_type):
    """As people run it: ``yes | sparsity-report run FOLDER --perplexity`` inside the folder."""
    folder, marker = planted
    tell(folder / "config.json", model_type=model_type)
    for name in ("torch", "transformers", "sentencepiece", "tiktoken", "sitecustomize", "yaml"):
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write(__file__)")
    (tmp_path / "some.txt").write_text(TEXT[:400], encoding="utf-8")
    line = ["run", ".", "--perplexity", "--text", tmp_path / "some.txt", "--out", tmp_path / "out"]
    few = ["--write", "study"]
    run = subprocess.run(
        [Path(sys.executable).with_name("sparsity-report"), *line, *few],
        input="y\n" * 1000, capture_output=True, text=True, cwd=folder, timeout=300,
    )  # fmt: skip
    assert not marker.exists(), marker.read_text()
    assert "[y/N]" not in run.stdout + run.stderr
    if model_type == "llama":
        assert run.returncode == 0, run.stderr
        study = sr.read_study(tmp_path / "out" / "study.json")
        assert study.quality["perplexity"].notna().any()
    else:
        assert run.returncode == 2
        assert "can be counted but not run" in run.stderr
        assert "does not know model type 'evil'" in run.stderr
        assert len(run.stderr.splitlines()) == 1


# Fields that a reader might look up by name, and what may be made of them.
SPELL = "__import__('os').system('touch {}')"
FIELDS = {
    "quantization_config": [
        {"quant_method": SPELL}, {"quant_method": [SPELL]},
        {"quant_method": "compressed-tensors", "format": SPELL},
        {"quant_method": "compressed-tensors", "sparsity_config": {"format": SPELL}},
        {"quant_method": "gptq", "checkpoint_format": SPELL},
        {"config_groups": {SPELL: {"weights": {"num_bits": SPELL, "group_size": SPELL}}}},
    ],
    "quantization": [{"mode": SPELL}], "compression_config": [{"format": SPELL}],
    "dtype": [SPELL, "load"], "architectures": [[SPELL]], "format": [SPELL],
    "hidden_act": [SPELL], "rope_scaling": [{"rope_type": SPELL}],
    "_attn_implementation": [SPELL], "auto_map": [SPELL, {"AutoConfig": SPELL}],
    "trust_remote_code": [True], "tokenizer_class": [SPELL], "chat_template": [SPELL],
    "model_max_length": [SPELL], "extra_special_tokens": [SPELL],
}  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_configuration_is_not_evaluated(clean, tmp_path, asked, field):
    marker = tmp_path / "marker"
    for number, spell in enumerate(FIELDS[field]):
        folder = shutil.copytree(clean, tmp_path / f"{number}")
        told = json.loads(json.dumps(spell).replace("{}", str(marker)))
        for name in ("config.json", "tokenizer_config.json"):
            tell(folder / name, **{field: told})
        for work in (
            lambda folder=folder: sr.load(folder).module(),
            lambda folder=folder: sr.load(folder).tokenizer()(WORDS),
            lambda folder=folder: open_to_count(folder),
        ):
            with suppress(sr.SparsityReportError):
                work()
        assert (asked, marker.exists()) == ([], False)


def test_tokenizer_file_is_not_evaluated(clean, tmp_path, asked):
    """Metadata of safetensors, in which torchao keeps the names of classes."""
    marker = tmp_path / "marker"
    spell, stored = SPELL.format(marker), load_file(clean / "model.safetensors")
    for told in (
        {"format": spell},
        {"format": "pt", "tensor_names": json.dumps([spell]), spell: spell,
         "model.norm.weight": json.dumps({"_type": spell, "_data": {}})},
    ):  # fmt: skip
        save_file(stored, clean / "model.safetensors", metadata=told)
        assert sr.load(clean).module().state_dict().keys() == stored.keys()
        assert (asked, marker.exists()) == ([], False)


def test_a_model_that_is_code_is_counted_and_not_run(planted, clean, asked):
    folder, marker = planted
    tell(folder / "config.json", model_type="evil")
    weights = sr.load(folder)
    assert same(weights.tokenizer(), AutoTokenizer.from_pretrained(clean))
    with pytest.raises(sr.SparsityReportError, match="does not know model type 'evil'"):
        weights.module()
    with pytest.raises(sr.SparsityReportError, match="can be counted but not run"):
        sr.perplexity(sr.dense(weights), TEXT)
    assert (asked, marker.exists()) == ([], False)


@pytest.mark.parametrize("kind", ["Llama", "OPT", "GPTNeoX"])
def test_missing_tokenizer_is_reported_in_one_sentence(tmp_path, kind):
    """As transformers' reasons are pages for some classes."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 16}
    config = getattr(transformers, f"{kind}Config")(**sizes)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(tmp_path)
    with pytest.raises(
        sr.SparsityReportError, match=r"opens .there is no tokenizer.json.; put the"
    ):
        sr.wanda(sr.load(tmp_path), 0.3)


@pytest.mark.parametrize("name", ["AutoModelForCausalLM", "AutoProcessor", "AutoTokenizer", "pi"])
def test_a_class_that_is_no_tokenizer(planted, asked, name):
    folder, marker = planted
    tell(folder / "tokenizer_config.json", tokenizer_class=name)
    (folder / "tokenizer.json").unlink()
    refused("no tokenizer that opens .*; put ", folder)
    assert (asked, marker.exists()) == ([], False)


def write_llama_gguf(path, template):
    """A small Llama, its tokenizer and a template of chats in one file."""
    told = json.loads(trained("bpe").to_str())["model"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    write_gguf(
        path,
        {
            names.get_name(name, (".weight",)): (value.numpy(), None)
            for name, value in small_llama().state_dict().items()
        },
        block_count=2, context_length=32, embedding_length=32, feed_forward_length=48,
        head_count=4, head_count_kv=2, layer_norm_rms_eps=1e-6, vocab_size=64,
        tokenizer_model="gpt2", token_list=[sorted(told["vocab"], key=told["vocab"].get)],
        token_merges=[[" ".join(pair) for pair in told["merges"]]],
        bos_token_id=1, eos_token_id=1, chat_template=template,
    )  # fmt: skip


def test_no_code_beside_a_gguf_file_runs(tmp_path, asked):
    folder, marker = tmp_path / "gguf", tmp_path / "marker"
    plant(folder, marker)
    write_llama_gguf(folder / "model.gguf", (folder / "chat_template.jinja").read_text())
    shutil.copy(folder / "model.gguf", tmp_path / "alone.gguf")
    expected = AutoTokenizer.from_pretrained(tmp_path, gguf_file="alone.gguf")
    for path in (folder, folder / "model.gguf"):
        weights = sr.load(path)
        assert weights.architecture == "LlamaForCausalLM"
        assert same(weights.tokenizer(), expected) > 100
    assert type(weights.module()) is transformers.LlamaForCausalLM
    assert sr.perplexity(sr.dense(weights), TEXT[:99])["tokens"][0] > 40
    assert (asked, marker.exists()) == ([], False)


def test_bpe_in_a_gguf_file_is_transformers(smollm2, smollm2_path):
    expected = AutoTokenizer.from_pretrained(smollm2_path.parent, gguf_file=smollm2_path.name)
    opened = smollm2.tokenizer()
    assert same(opened, expected) > 100
    assert opened.decode(opened(WORDS)["input_ids"]) == WORDS


def test_configs_name_no_code_at_any_depth(tmp_path):
    file = tmp_path / "config.json"
    told = {"a": 1, "text_config": {"b": [{"auto_map": {}, "c": 2}], "quantization_config": {}}}
    file.write_text(json.dumps({**told, "auto_map": NAMED, "_attn_implementation": "x/y"}))
    plainly = {"a": 1, "text_config": {"b": [{"c": 2}]}}
    assert meta_model.read_config_file(file) == plainly
    for name in ("evil.py", "chat_template.jinja", "processor_config.json", "vocab.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "large.txt").touch()
    os.truncate(tmp_path / "large.txt", limits.TEXT_BYTES + 1)
    with meta_model.plain_folder(tmp_path, ["*"]) as shown:
        assert {f.name for f in shown.iterdir()} == {
            "chat_template.jinja", "config.json", "evil.py", "vocab.txt",
        }  # fmt: skip
        assert json.loads((shown / "config.json").read_text()) == plainly
    assert not shown.exists()


def test_tokenizer_with_code_is_reported(planted, asked):
    folder, marker = planted
    (folder / "tokenizer.json").unlink()
    said = (
        r"has no EvilTokenizer, there is no tokenizer.json, and code .* not run\); put the tokeniz"
    )
    refused(said, folder)
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "b": 1}))
    (folder / "merges.txt").write_text("")
    refused(said, folder)
    tell(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    assert sr.load(folder).tokenizer()("ab")["input_ids"] == [0, 1]
    assert (asked, marker.exists()) == ([], False)


@pytest.mark.parametrize(
    ("settings", "files", "lacking"),
    [({}, {}, "there is no tokenizer.json"),
     ({"tokenizer_class": "T5Tokenizer"}, {"vocab.txt": "a"}, "needs spiece.model"),
     ({"tokenizer_class": "GPT2Tokenizer"}, {"vocab.json": '{"a": 0}'},
      "`vocab` and `merges` must be both"),
     ({"tokenizer_class": "BertTokenizer"}, {}, "there is no tokenizer.json"),
     ({}, {"tokenizer.json": "{}"}, r"no tokenizer that opens \(")],
)  # fmt: skip
def test_a_tokenizer_without_a_vocabulary_is_refused(clean, settings, files, lacking):
    """Transformers makes an empty one, to which every word is unknown."""
    (clean / "tokenizer.json").unlink()
    tell(clean / "tokenizer_config.json", **settings)
    for name, text in files.items():
        (clean / name).write_text(text)
    refused(lacking, clean)


def test_wordpiece_is_transformers(minilm, minilm_path):
    expected = AutoTokenizer.from_pretrained(minilm_path)
    assert same(minilm.tokenizer(), expected) > 512
    alone = tokenizers.Tokenizer.from_file(str(minilm_path / "tokenizer.json"))
    alone.no_truncation()
    alone.no_padding()
    assert minilm.tokenizer()(WORDS)["input_ids"] == alone.encode(WORDS).ids


@pytest.mark.parametrize("kind", [None, "T5Tokenizer", "PreTrainedTokenizerFast"])
def test_unigram_is_transformers(clean, kind):
    trained("unigram").save(str(clean / "tokenizer.json"))
    tell(clean / "tokenizer_config.json", tokenizer_class=kind)
    opened = sr.load(clean).tokenizer()
    assert same(opened, AutoTokenizer.from_pretrained(clean)) > 100
    if kind == "PreTrainedTokenizerFast":
        alone = tokenizers.Tokenizer.from_file(str(clean / "tokenizer.json"))
        assert opened(WORDS)["input_ids"] == alone.encode(WORDS).ids


def test_a_panic_of_the_library_is_a_refusal(clean):
    """Merges of words shorter than what they are said to begin with: tokenizers 0.23 panics."""
    told = json.loads((clean / "tokenizer.json").read_text())
    told["model"]["continuing_subword_prefix"] = "#" * 400
    (clean / "tokenizer.json").write_text(json.dumps(told))
    refused("has no tokenizer that opens", clean)


def test_a_tokenizer_that_fails_on_a_text_is_one_line(clean, capfd):
    """An expression that exhausts its matcher is a panic, which Rust prints on descriptor 2."""
    told = json.loads((clean / "tokenizer.json").read_text(encoding="utf-8"))
    told["pre_tokenizer"] = {
        "type": "Split", "pattern": {"Regex": "((((a*)*)*)*)*$"}, "behavior": "Isolated",
        "invert": False,
    }  # fmt: skip
    (clean / "tokenizer.json").write_text(json.dumps(told), encoding="utf-8")
    weights, text = sr.load(clean), "a" * 400 + "b"
    tokenizer = weights.tokenizer()
    for use in (
        lambda: sr.perplexity(sr.dense(weights), text),
        lambda: sr.continuations(sr.dense(weights), text, tokens=1),
        lambda: sr.continuations(sr.dense(weights), text, tokens=1, tokenizer=tokenizer),
        lambda: sr.sensitivity(weights, 0.5, by="group", text=text),
        lambda: sr.calibrate(weights, text), lambda: sr.calibrate(weights, [text, text]),
    ):  # fmt: skip
        with pytest.raises(sr.SparsityReportError, match=r"cannot read the text .*retry-limit"):
            use()
    printed = capfd.readouterr().err
    assert "panicked" not in printed
    assert "backtrace" not in printed


def test_other_output_passes_the_gate_of_tokenizers(clean, capfd):
    class Tokenizer:
        def __call__(self, text, **_):
            os.write(2, b"as before\n")
            return {"input_ids": torch.ones(1, len(text), dtype=torch.int64)}

        def decode(self, *_, **__):
            raise KeyError("no token")

    with pytest.raises(sr.SparsityReportError, match=r"cannot write a text .*no token"):
        sr.continuations(sr.dense(sr.load(clean)), "abc", tokens=1, tokenizer=Tokenizer())
    assert "as before\n" in capfd.readouterr().err


def test_vocabulary_and_merges_are_enough(clean):
    trained("bpe").model.save(str(clean))
    (clean / "tokenizer.json").unlink()
    tell(clean / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer", unk_token="<unk>")
    assert same(sr.load(clean).tokenizer(), AutoTokenizer.from_pretrained(clean)) > 100


def test_sentencepiece_is_enough(clean, tmp_path):
    installed = [importlib.util.find_spec(name) for name in ("sentencepiece", "google.protobuf")]
    need(all(installed), "sentencepiece and protobuf")
    import sentencepiece

    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=tmp_path / "text", model_prefix=clean / "tokenizer", vocab_size=200, minloglevel=2,
        model_type="bpe",
    )  # fmt: skip
    (clean / "tokenizer.json").unlink()
    assert same(sr.load(clean).tokenizer(), AutoTokenizer.from_pretrained(clean)) > 100
