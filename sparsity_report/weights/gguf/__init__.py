"""GGUF files.

- `gguf_header`: metadata, tensors and quantized blocks, checked against limits
- `gguf_shards`: a model in one file or in shards, as its headers describe it
"""
