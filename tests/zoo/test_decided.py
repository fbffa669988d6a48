"""Files that names, shapes and ``config.json`` decide, against the class that wrote them."""

import json
import random
from contextlib import suppress

import pytest
from helpers import swept

import sparsity_report as sr
from sparsity_report.weights.loading import open_to_count
from zoo.checks import sums
from zoo.tiny import walked

DECIDED = (
    "OPTForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
    "Qwen3ForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "Phi3ForCausalLM",
    "GPT2LMHeadModel", "GPTNeoXForCausalLM", "MixtralForCausalLM", "Qwen2MoeForCausalLM",
    "Qwen3MoeForCausalLM", "Olmo2ForCausalLM", "OlmoeForCausalLM", "FalconForCausalLM",
)  # fmt: skip
BODIES = ("BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM")
CLASSES = {case.name: case for case in walked()}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", swept((*DECIDED, *BODIES), 8))
def test_decided_files_equal_their_class(name, tmp_path):
    case = CLASSES[name]
    if name.startswith("DistilBert"):  # square matrices alone do not tell their direction
        case.config.hidden_dim = 48
    model = case.build()
    (model.base_model if name in BODIES else model).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    optional, chance = sorted(config.keys() - {"model_type"}), random.Random(name)
    dropped = [(), ("tie_word_embeddings",), *(chance.sample(optional, 6) for _ in range(3))]
    for keys in dropped:
        file.write_text(json.dumps({key: config[key] for key in config.keys() - {*keys}}))
        weights = open_to_count(tmp_path)
        is_decided = not weights.architecture and not weights.notes
        assert is_decided or keys
        if is_decided:
            with suppress(sr.SparsityReportError):  # what the class requires may be dropped
                assert sums(weights) == sums(sr.load(tmp_path)), keys
