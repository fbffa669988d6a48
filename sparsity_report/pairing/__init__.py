"""Two checkpoints side by side: which weight of one is which of the other, and what became of it.

`roles` says what each parameter does in its block and what its rows and columns are; `fingerprints` reads
rows and tells them apart, `unit_matching` finds which of the base's are left, `align` does so for blocks,
experts, heads and channels and `embeddings` for tokens and the width, all of it an `alignment`; what
stands in another order `permutations` says. `parameter_plan` says which parameter of one belongs to which of the
other, as `matches`; `row_maps` which of its rows and columns are left, `fused` what is fused in one and
split in the other. `paired_reading` reads both, each once, compares them in compiled `compiled_loops`, and has of
every stretch a `tally`, the counts and sums that all else follows from; these are `tally_cache` on disk.
`removed` is what went, thing by thing.

May import ``counting`` and what is below it. Maintainers: every count is taken from values, none
is expected from shares; the base, the model before, is the frame of reference, and what it lost
is told by its own names and numbers.
"""
