"""
Use of experts
==============

Share of a text's tokens that the router sends to each expert, layer by expert, in a random mixture.
"""

from tempfile import TemporaryDirectory

import torch
import transformers

import sparsity_report as sr

torch.manual_seed(0)
sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
config = transformers.MixtralConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)
weights = sr.load(transformers.MixtralForCausalLM(config))
calibration = sr.calibrate(weights, torch.arange(64), window=16)
study = sr.compare(sr.dense(weights)).with_measured(experts=calibration)
folder = TemporaryDirectory()
files = {path.name: path for path in sr.write_thesis(study, folder.name)}
picture = files["expert_use_dense_text.svg"]
