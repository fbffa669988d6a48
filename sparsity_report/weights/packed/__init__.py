"""Weights that a file keeps packed: recognised, and decoded a slice at a time, in numpy.

``recognise`` decides what each tensor of a checkpoint is, before anything is counted, with what
``scheme`` reads of the configuration; a matrix of several tensors becomes one entry with a decoder
of ``rowwise`` (its rows lie in the file one after the other), ``columnwise`` (its columns do) or
``sparse`` (a bit per weight says which are there). ``bits`` takes packed integers apart.

A decoder is a frozen value of entries and numbers: small and picklable, so that another process
can decode. It yields float32, exact products of what the file holds, in the order in which the
model has the weights in memory. A value that the file writes as zero is zero.
"""
