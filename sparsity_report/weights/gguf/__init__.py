"""GGUF files.

- `gguf_header`: metadata, tensors and quantized blocks, checked against limits
- `gguf_shards`: models in several files
- `gguf_model`: a model of all this, with the transformers configuration of the metadata
"""
