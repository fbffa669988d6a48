"""Open a Transformer, see exactly what pruning does to it as Dense, Masked and CSR.

>>> import sparsity_report as sr
>>> weights = sr.load()                                    # the built-in demo model
>>> pruning = sr.global_magnitude(weights, sparsity=0.30)  # a value; nothing is modified
>>> study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
>>> study.totals[["variant", "sparsity_prunable"]].round(2).values.tolist()
[['Dense', 0.0], ['Masked30', 0.3], ['CSR30', 0.3]]
"""

import lazy_loader

# __init__.pyi lists the names. Each is imported when first used, so that `import sparsity_report`
# loads no other library.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
