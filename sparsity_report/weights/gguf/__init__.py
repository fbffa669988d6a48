"""GGUF files.

- `gguf_metadata`: keys and values of a header, checked against limits
- `gguf_header`: tensors of a header, their quantized blocks and rounding steps
- `gguf_shards`: models in several files
- `gguf_model`: a model of all this, with the transformers configuration of the metadata
"""
