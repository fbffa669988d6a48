"""Sparse layouts: what they cost, and layers that run in them.

`cost` has FLOPs and bytes from integers, unit in the name; `shares` the only definitions of a share
of zeros, a ratio and a break-even; `csr_product` is a CSR matrix times tokens, `linear_csr` and `experts`
are layers stored as CSR, `csr_swap` says where they can stand in for what a model has, and puts them
there.

May import ``errors``. Maintainers: torch's ``.nbytes`` of a CSR tensor is its dense size and
``_nnz()`` counts explicit zeros; neither is used.
"""
