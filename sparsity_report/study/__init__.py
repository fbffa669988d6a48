"""Variants → frames → facts: one frozen value that can be saved, read and rendered.

``variants`` are what is compared, ``study`` the value that holds them as frames (``compare``). One
room makes each frame: ``layers`` (and the sums of groups and totals), ``sweep`` (every layer at
many levels), ``patterns`` (where the zeros stand; ``compressed``, what zstd makes of them),
``storage`` (bytes of every layout). ``levels`` reads a kept sweep without the model,
``policy_levels`` has those of further policies, ``parts`` sums some modules of a variant as a level
sums them, ``grid`` sorts layers into a heat map, ``budget`` finds the level of a budget,
``metrics`` are figures of layers that are no counts, ``rounded`` sums what rounding explains,
``speed`` says which measured speeds are none but noise, ``scored`` sets a variant's perplexity
beside the baseline's, ``tradeoff`` quality against bytes, ``cards`` picks the four figures that a
reader meets first, ``compared`` sets prunings side by side and says which is best at what,
``spread`` says how unevenly zeros lie, ``dead`` what is zero throughout, ``inside`` the zeros of
heads and experts, ``magnitudes`` are the histograms of layers, and ``facts`` the figures that
readers show. ``schema`` declares every table's columns once; ``file`` saves and reads, with
``digest`` for whether a file is as it was written, ``agreement`` for what must fit across tables,
``recomputed`` for what measurements must agree with, and ``upgrade`` for files of the versions
before. ``results`` reads what evaluation harnesses wrote of a variant, ``zero_shot`` takes from it
the table that papers print. ``combined`` makes one study of several, and ``methods`` sets their
ways to prune side by side. ``pair`` is two checkpoints compared weight by weight, which
``checkpoints`` does; ``pair_frames`` makes its tables, ``pair_cells`` what is drawn of them, and
``pair_file`` keeps it.

May import ``pairing`` and what is below it. Maintainers: integers in, integers out; unknown is
null, never 0; a share, ratio or break-even is computed by ``sparse.shares`` only. A column is added
in ``schema`` (with its title's translation), filled in its room, derived in ``upgrade`` for old
files, and ``docs/study.schema.json`` written anew (a test says how).
"""
