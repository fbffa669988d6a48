"""The files of a tokenizer: it opens from its data or is refused, and what opens reads a text."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from fuzz.family import Base, Family, Files
from fuzz.mutators import damage_bytes, damage_json, dumped, parsed
from sparsity_report.weights.sources.tokenizer import decode, encode, open_tokenizer

_WORDS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "a", "b", "##c", "Ġthe", "ab")
_CLASSES = (
    "BertTokenizer", "GPT2Tokenizer", "PreTrainedTokenizerFast", "LlamaTokenizer", "T5Tokenizer",
    "AlbertTokenizer", "CTRLTokenizer", "ByT5Tokenizer", "MarianTokenizer", "XLMTokenizer",
    "LlamaConfig", "AutoTokenizer", "WhisperTokenizer", "CanineTokenizer", "ReformerTokenizer",
)  # fmt: skip
_PATTERNS = ("((((a*)*)*)*)*$", "(a+)+$", "(a|a)*b$", "(", "a{1,100000}", "", "(?=(a+))a*b", r"\s+")
_TEXT = "a" * 200 + " the ab [MASK] \u00e9\u6f22\n\0 "


def _bases(folder: Path) -> list[Base]:
    vocabulary = {word: place for place, word in enumerate(_WORDS)}
    bpe = Tokenizer(models.BPE(vocabulary, [("a", "b")], unk_token="[UNK]"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel()
    word_pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    word_pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    word_pieces.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    unigram = Tokenizer(models.Unigram([(word, -float(n)) for n, word in enumerate(_WORDS)], 0))
    bases = []
    for name, each in {"bpe": bpe, "wordpiece": word_pieces, "unigram": unigram}.items():
        fast = PreTrainedTokenizerFast(tokenizer_object=each, pad_token="[PAD]", unk_token="[UNK]")
        fast.save_pretrained(folder / name)
        files = {file.name: file.read_bytes() for file in sorted((folder / name).iterdir())}
        bases.append(Base(name, files))
    bert = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    gpt2 = {"tokenizer_class": "GPT2Tokenizer", "unk_token": "[UNK]"}
    bases += [
        Base("vocab.txt", {
            "tokenizer_config.json": json.dumps(bert).encode(),
            "vocab.txt": "\n".join(_WORDS).encode(),
        }),
        Base("merges", {
            "tokenizer_config.json": json.dumps(gpt2).encode(),
            "vocab.json": json.dumps(vocabulary).encode(),
            "merges.txt": b"#version: 0.2\na b\n",
        }),
    ]  # fmt: skip
    return bases


def damage_told(random: Random, files: Files) -> None:
    """Change anything that one of the JSON files says."""
    name = random.choice([name for name in files if name.endswith(".json")] or [""])
    if isinstance(files.get(name), bytes) and (told := parsed(files[name])) is not None:
        files[name] = dumped(damage_json(random, told))


def damage_class(random: Random, files: Files) -> None:
    """Name another class of tokenizers."""
    name = "tokenizer_config.json"
    told = parsed(files[name]) if isinstance(files.get(name), bytes) else None
    if isinstance(told, dict):
        files[name] = dumped({**told, "tokenizer_class": random.choice(_CLASSES)})


def damage_files(random: Random, files: Files) -> None:
    """Change some bytes of a file, take it away, swap it, or put something else in its place."""
    name, other = random.choice(list(files)), random.choice(list(files))
    kind = random.randrange(8)
    if kind == 0 and len(files) > 1:
        del files[name]
    elif kind == 1:
        files[name], files[other] = files[other], files[name]
    elif kind == 2:
        files[name] = random.choice((None, b"", name, "/dev/zero", b"\n" * 1000))
    elif isinstance(files[name], bytes):
        files[name] = damage_bytes(random, files[name])


def damage_pattern(random: Random, files: Files) -> None:
    """Split words by an expression that is wrong, or that exhausts the matcher."""
    told = parsed(files["tokenizer.json"]) if isinstance(files.get("tokenizer.json"), bytes) else 0
    if isinstance(told, dict):
        split = {"type": "Split", "pattern": {"Regex": random.choice(_PATTERNS)}}
        split |= {"behavior": random.choice(("Isolated", "Removed")), "invert": False}
        where = random.choice(("pre_tokenizer", "normalizer"))
        replace = {"type": "Replace", "pattern": split["pattern"], "content": "a"}
        told[where] = split if where == "pre_tokenizer" else replace
        files["tokenizer.json"] = dumped(told)


def _judge(folder: Path, _: Base) -> str:
    tokenizer = open_tokenizer(folder)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return f"opens as {type(tokenizer)}"
    ids = encode(tokenizer, _TEXT, "it")
    text = decode(tokenizer, ids.tolist(), "it")
    return "" if ids.dim() == 1 and isinstance(text, str) else f"reads {ids.shape}"


TOKENIZER = Family(
    "tokenizer",
    _bases,
    (damage_told, damage_told, damage_class, damage_files, damage_pattern),
    _judge,
    quick=20,
)
