"""Packed weights: their formats are detected, and values are decoded slice by slice in NumPy.

- `quantization_config`: the settings that a checkpoint declares.
- `format_detection`: the list of all formats, and the role of each tensor, decided before anything
  is counted.
- `packed_format`: the interface of a format, the tensors of one weight with their checks, and their
  settings.
- `compressed_tensors`, `gptq_awq`, `bitsandbytes`, `mlx`, `scaled_floats` (FP8, int8, ModelOpt,
  gpt-oss, torchao): one module per family, one class per format.
- `packed_tensor`: the interface of decoders; `rowwise`: the decoder of matrices stored row by
  row, from codes of a few bits and scales of blocks.

A decoder is a frozen, picklable value, so that another process can decode. It yields exact float32
products in the model's order. A value that the file stores as zero decodes to zero.
"""
