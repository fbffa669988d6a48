"""GGUF files.

- `gguf_metadata`: keys and values of a header, checked against limits
- `gguf_header`: tensors of a header and their quantized blocks
- `gguf_steps`: rounding steps of blocks
- `gguf_shards`: models in several files
- `gguf_config`: the transformers configuration of the metadata
- `gguf_model`: a model of all this
- `gguf_remote`: models on the Hub
"""
