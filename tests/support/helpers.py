"""What tests of several wings share: small models, their studies, files to read."""

import json
import os
import resource
import signal
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import gguf
import numpy as np
import pytest
import torch
import transformers
from hypothesis import strategies as st
from torch import nn
from transformers import conversion_mapping
from transformers.core_model_loading import Transpose, WeightConverter

import sparsity_report as sr
from sparsity_report import cli
from sparsity_report.cli.terminal import STOPPING
from sparsity_report.counting import counts as counting
from sparsity_report.counting.counts import count_weights
from sparsity_report.counting.histogram import count_slices
from sparsity_report.weights.sources import checkpoint
from sparsity_report.weights.torch_tensors import tensor_slices

IN_CI = os.environ.get("CI") == "true"
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def need(present: bool, what: str) -> None:
    """Skip where a tool or a model is missing; in CI nothing may be missing."""
    if present:
        return
    if IN_CI:
        pytest.fail(f"{what} is missing, and in CI nothing may be skipped")
    pytest.skip(what)


def swept(cases, step):
    """Return parameters of which every few run always, and the others with ``--all`` only."""
    return [
        pytest.param(case, marks=[pytest.mark.sweep] if place % step else [])
        for place, case in enumerate(cases)
    ]


def described(weights, in_file=True):
    """Return all that a description tells, bytes in files included."""
    modules = [
        (m.name, m.group, [p if in_file else replace(p, file_bytes=None) for p in m.parameters])
        for m in weights.modules
    ]
    return modules, weights.attention_widths


def is_decided(weights):
    """Return whether names describe a checkpoint that its configuration gives a class."""
    return bool(weights.architecture) and weights.contents.model is None


def load_by_class(path):
    """Open a checkpoint as if its names decided nothing."""
    with mock.patch.object(checkpoint, "decide", return_value=None):
        return sr.load(path)


class Outcome(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments, cwd=None):
    """Run the command line in this process; what it is as a process, tests/test_cli.py knows."""
    out, err, before, code = StringIO(), StringIO(), Path.cwd(), 0
    line = ["sparsity-report", *map(str, arguments)]
    verbosity = transformers.logging.get_verbosity()
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    with mock.patch.object(sys, "argv", line), redirect_stdout(out), redirect_stderr(err):
        os.chdir(cwd or before)
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code or 0
        finally:
            os.chdir(before)
            transformers.logging.set_verbosity(verbosity)
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Outcome(code, out.getvalue(), err.getvalue())


@contextmanager
def small_files(size):
    """A disk that is full after so many bytes of a file: the system refuses to write more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refused(match, *args, **kwargs):
    """Expect that a model is refused in one short line."""
    with pytest.raises(sr.SparsityReportError, match=match) as caught:
        sr.load(*args, **kwargs)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def study_of(weights, sparsity=0.3, **options):
    """Dense, masked and CSR of one model."""
    pruning = sr.global_magnitude(weights, sparsity)
    return sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning), **options)


class Tiny(nn.Module):
    """Two blocks, an embedding, norms and a head; few enough weights to count by hand."""

    def __init__(self, vocabulary=11, width=6, hidden=10, blocks=2, dtype=torch.float32, tied=True):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width, dtype=dtype)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "self_attn": nn.ModuleDict({"q_proj": nn.Linear(width, width, dtype=dtype)}),
                    "fc1": nn.Linear(width, hidden, dtype=dtype),
                    "fc2": nn.Linear(hidden, width, dtype=dtype),
                    "norm": nn.LayerNorm(width, dtype=dtype),
                }
            )
            for _ in range(blocks)
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=False, dtype=dtype)
        if tied:
            self.lm_head.weight = self.embed_tokens.weight

    def get_input_embeddings(self):
        return self.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, ids):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = x + layer["self_attn"]["q_proj"](layer["norm"](x))
            x = x + layer["fc2"](torch.relu(layer["fc1"](x)))
        return self.lm_head(x)


def named(paths):
    """A model with one linear layer per dotted path."""
    torch.manual_seed(0)
    root = nn.Module()
    for path in paths:
        *inner, leaf = path.split(".")
        place = root
        for word in inner:
            if word not in place._modules:
                place.add_module(word, nn.Module())
            place = place._modules[word]
        place.add_module(leaf, nn.Linear(4, 4))
    return root


def small_llama(**options):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
        **{"max_position_embeddings": 32, **options},
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def set_config(folder, **settings):
    """Change settings of a saved model; return its folder."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def write_gguf(path, tensors, architecture="llama", **metadata):
    writer = gguf.GGUFWriter(path, architecture)
    for key, values in metadata.items():
        for value in values if isinstance(values, list) else [values]:
            getattr(writer, f"add_{key}")(*(value if isinstance(value, tuple) else (value,)))
    for name, (values, kind) in tensors.items():
        data = gguf.quantize(values, kind) if kind and values.dtype != np.uint8 else values
        writer.add_tensor(name, data, raw_dtype=kind)
    finish(writer)


def finish(writer):
    """Write what a GGUF writer has got."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def turned_on_loading(monkeypatch, pattern):
    """Let transformers turn tensors of a name on loading, as it does with those of some models."""
    monkeypatch.setattr(checkpoint, "decide", lambda *_: None)
    rule = WeightConverter(pattern, pattern, [Transpose(0, 1)])
    monkeypatch.setattr(conversion_mapping, "get_model_conversion_mapping", lambda *_: [rule])


def counted(frame):
    """All of a frame that a model in memory has, too: it has no bytes in a file."""
    return frame.drop(columns="file_bytes")


def known_counts(weights):
    """Return the counts of a model so far, by parameter name."""
    return counting._MEMORIES.get(weights, counting._Memory()).counts


def same_layers(one, other):
    left, right = (counted(study_of(weights).layers) for weights in (one, other))
    assert left.equals(right)


def same_counts(one, other):
    left, right = count_weights(one), count_weights(other)
    assert left.keys() == right.keys()
    for name, seen in left.items():
        assert (seen.total, seen.nonzero, seen.nan) == (
            right[name].total, right[name].nonzero, right[name].nan,
        )  # fmt: skip
        assert np.array_equal(seen.values, right[name].values)
        assert np.array_equal(seen.counts, right[name].counts)


def counts_as_derived(*variants):
    """Compare the nonzeros of materialized variants with the derived ones."""
    for variant in variants:
        real, _ = sr.analyze_layers(variant.module(), variant.name)
        assert real["nonzero"].tolist() == variant.layers()["nonzero"].tolist()


@st.composite
def models(draw):
    """Random layers whose weights come from few values, so that ties are everywhere."""
    seed = draw(st.integers(0, 10**6))
    torch.manual_seed(seed)
    dtypes = draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4))
    levels = draw(st.sampled_from([2, 5, 1000]))
    model = nn.Module()
    for number, dtype in enumerate(dtypes):
        layer = nn.Linear(
            draw(st.integers(1, 9)), draw(st.integers(1, 9)), bias=draw(st.booleans()), dtype=dtype
        )
        with torch.no_grad():
            steps = torch.randint(-levels, levels + 1, layer.weight.shape)
            layer.weight.copy_(steps / 7)
        model.add_module(f"fc{number}", layer)
    return model


def count(tensor):
    """Return the nonzeros and the histogram of a tensor."""
    return count_slices({"": tensor_slices(tensor)})[""]
