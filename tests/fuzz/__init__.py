"""Damaged files of every kind that is read: each is counted right or refused in one line.

- `family`: what a kind of files is made of, how one is damaged, who says what it means
- `mutators`: changes that know bytes, JSON and tensors
- one module per family, named in `families`
"""
