"""Small models: architectures counted by hand, and every class that transformers can build.

`cases` has the products of the architectures people prune, written out. `tiny` lists the model
classes of the installed transformers and builds each from its own config, which `shrink` makes
small by the names of its numbers, with `exceptions`; `reads` gives a model what its forward takes.
`products` sees which parameter each matrix product of a run multiplies by, `checks` holds what this
package says against that and other oracles, and `walk` runs the checks over all of them.
"""

from zoo.cases import CASES, built

__all__ = ["CASES", "built"]
