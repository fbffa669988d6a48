"""Models opened for counting, whatever their source.

- `loading`: ``load``, which chooses the reader of a source, and ``open_to_count`` for headers alone
- `weights`: the interface of an opened model
- `module_order`: one order of modules for all sources, from their names
- `tensor_slices`: tensors read slice by slice; `matrix_direction`: outputs or inputs first
- `array_dtypes`: NumPy dtypes by name; `torch_tensors`: arrays as tensors; `torch_extra`: torch or
  the line that refuses without it
- `sources`: safetensors, GGUF, pickles, the Hub, models in memory
- `adapters`: LoRA adapters, merged into a base
- `packed`: formats that pack several values, such as GPTQ and bitsandbytes
- `anatomy`: modules, groups and uses of parameters, from configurations and runs without values

Files are untrusted: every length and name is checked before use, no code of a checkpoint is
imported, and unknown content is an error, never a guess. A new format is a function that returns
the ``Entry`` list of a file for ``open_checkpoint``; packed values are a subclass of ``FileSlice``.
"""
