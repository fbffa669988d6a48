"""Sources of weights: local files, the Hub, and models in memory.

- `checkpoint`: tensors of files, described by names or by the class of ``config.json``
- `class_match`: match of tensors with that class, which needs torch
- `fewer_experts`: a checkpoint without some of its experts
- `safetensors`, `gguf_files`, `pickles`: headers of these files
- `model_files`: files that make up a model, and their headers; `model_paths`: local paths
- `hub`: files of a repository; `http_ranges` streams them
- `memory`: an ``nn.Module``
- `gguf_decided`: GGUF models that names and metadata describe
- `gguf_imatrix`: tokens by expert from the imatrix files of llama.cpp
- `gguf_model`: a GGUF model with the class of its metadata, or described by names
- `tokenizer`: the tokenizer of a checkpoint
"""
