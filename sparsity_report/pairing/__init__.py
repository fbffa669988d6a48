"""Two checkpoints side by side: which weight of one is which of the other, and what became of it.

`plan` says which parameter of one belongs to which of the other, `paired` reads both in step, each
once, with `tally`, the arithmetic of two stretches of values, which are `kept` on disk.

May import ``counting`` and what is below it. Maintainers: every count is taken from values, none
is expected from shares; the base, the model before, is the frame of reference, and what it lost
is told by its own names and numbers.
"""
