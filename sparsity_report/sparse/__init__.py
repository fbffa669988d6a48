"""Sparse layouts: what they cost, and layers that run in them."""
