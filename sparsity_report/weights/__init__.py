"""Open a model for counting, whatever its source: :mod:`loading` chooses the room that reads it.

`weights` and `parameters` are what the wings above see: a model with its modules and parameters,
described without values, and its tensors slice by slice. `parameter_places` finds and changes parameters in a
live model; `describe` (with `attention`, `groups`) tells what each is, by what the model does when
`meta_run` runs it without values (on `sample_inputs`, `tracer` what is multiplied), else by the rules of
`module_uses`. One room reads each source: `memory`, `safetensors`, `gguf_model` (with `gguf_metadata`,
`gguf_header`, `gguf_config`, `gguf_shards`, `gguf_remote` and `gguf_steps`), `pickles`, `structure`
(no values) and `hub`; those in files share `checkpoint`, `meta_model` (checked for what it has
`config_limits`), `tensor_names` and `tensor_slices`, and files may be `http_ranges`; what transformers fuses, splits or
turns on loading goes through `conversion`; `rounding_levels` says what packed formats make of weights near
zero. Transformers gets to see `data_files` copies of a folder, without what could be run, from which its
`tokenizer` is opened, too, and of GGUF a header that is written anew. `npz` reads arrays that are
no model. `packed` recognises and
decodes weights that are made up of several tensors, `adapter_files` what is no model; `lora` reads an
adapter, `merged_adapter` puts it onto its base.

May import ``sparse``, ``files``, ``foreign``, ``limits`` and ``errors``. Maintainers: files are
hostile, so every length and name is checked before it is believed, no code of a checkpoint is ever
imported, and what is not understood is an error, never a guess. A new format is a function that
reads the ``Entry``s of a file for ``open_checkpoint``; packed values are a subclass of
``FileSlice`` that decodes them.
"""
