"""Weights that a file keeps packed: recognised, and decoded a slice at a time, in numpy.

`format_detection` decides what each tensor of a checkpoint is, before anything is counted, with what
`quantization_config` reads of the configuration. Tensors that make up one weight are its `tensor_groups`; a room for
each family checks that they fit (`compressed_tensors`, `gptq_awq` and AWQ, `bitsandbytes`, `mlx`,
`scaled_floats`: FP8, int8, ModelOpt, gpt-oss, torchao) and gives it a decoder: `rowwise` (its rows lie in
the file one after the other), `columnwise` (its outputs side by side) or `sparse_bitmask` (a bit per weight
says which are there). `packed_tensor` says what a decoder is, `block_scales` spreads scales and zero points,
`packed_integers` takes packed integers apart, `part_slices` reads rows and columns of a part, and parts on the Hub
stay `remote_parts` while values are decoded.

A decoder is a frozen value of entries and numbers: small and picklable, so that another process
can decode. It yields float32, exact products of what the file holds, in the order in which the
model has the weights in memory. A value that the file writes as zero is zero.
"""
