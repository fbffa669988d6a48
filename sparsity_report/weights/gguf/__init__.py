"""GGUF files.

- `gguf_header`: metadata, tensors and quantized blocks, checked against limits
- `gguf_model`: a model in one file or in shards, with the transformers config of its metadata
"""
