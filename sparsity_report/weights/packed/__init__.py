"""Weights that a file keeps packed: recognised, and decoded a slice at a time, in numpy.

`recognise` decides what each tensor of a checkpoint is, before anything is counted, with what
`scheme` reads of the configuration. Tensors that make up one weight are its `parts`; a room for
each family checks that they fit (`compressed_tensors`, `gptq` and AWQ, `bitsandbytes`, `mlx`,
`scaled`: FP8, int8, ModelOpt, gpt-oss, torchao) and gives it a decoder: `rowwise` (its rows lie in
the file one after the other), `columnwise` (its outputs side by side) or `sparse` (a bit per weight
says which are there). `packed` says what a decoder is, `blocks` spreads scales and zero points,
`bits` takes packed integers apart, `reading` reads rows and columns of a part, and parts on the Hub
stay `connected` while values are decoded.

A decoder is a frozen value of entries and numbers: small and picklable, so that another process
can decode. It yields float32, exact products of what the file holds, in the order in which the
model has the weights in memory. A value that the file writes as zero is zero.
"""
