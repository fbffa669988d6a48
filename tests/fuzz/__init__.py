"""Damaged files of every kind that is read: each is counted right or refused in one line.

- `family`: what a kind of files is made of, how one is damaged, who says what it means
- `mutators`: changes that know bytes, JSON and tensors
- `runner`: one long-lived process, limits on each case, outcomes; shrinking
- one room per family, named in `families`

``python -m tests.fuzz --cases 10000 --family safetensors --seed 7`` runs any number and keeps what
reproduces a failure; ``--guided 600`` lets atheris, where it is installed, look for new paths.
"""
