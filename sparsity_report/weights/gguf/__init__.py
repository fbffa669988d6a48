"""GGUF files: header, metadata, shards and dequantized blocks.

Modules: `gguf_config`, `gguf_header`, `gguf_metadata`, `gguf_model`, `gguf_remote`,
`gguf_shards`, `gguf_steps`.
"""
