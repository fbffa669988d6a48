"""Sparse layouts: their costs, and layers stored as CSR.

- `cost`: FLOPs and bytes from integers
- `shares`: shares of zeros, ratios and break-even sparsity
- `linear_csr`: linear layers and experts stored as CSR
- `csr_swap`: replacement of layers of a model by CSR layers
- `runtime_support`: runtimes and the sparse layouts that they use, from a dated table

The ``.nbytes`` of a CSR tensor in torch is its dense size, and ``_nnz()`` counts explicit zeros;
neither is used here.
"""
