"""Variants → frames → facts: one frozen value that can be saved, read and rendered.

``variants`` are what is compared, ``comparison`` the value that holds them as frames (``compare``). One
room makes each frame: ``layers`` (and the sums of groups and totals), ``sweep`` (every layer at
many levels), ``patterns`` (where the zeros stand; ``zstd_sizes``, what zstd makes of them),
``storage_layouts`` (bytes of every layout). ``levels`` reads a kept sweep without the model,
``policy_levels`` has those of further policies, ``module_sums`` sums some modules of a variant as a level
sums them, ``heatmap_grid`` sorts layers into a heat map, ``budget`` finds the level of a budget,
``layer_metrics`` are figures of layers that are no counts, ``rounded_zeros`` sums what rounding explains,
``speedups`` says which measured speeds are none but noise, ``perplexity`` sets a variant's perplexity
beside the baseline's, ``tradeoff`` quality against bytes, ``cards`` picks the four figures that a
reader meets first, ``policy_comparison`` sets prunings side by side and says which is best at what,
``layer_spread`` says how unevenly zeros lie, ``zero_rows`` what is zero throughout, ``heads_experts`` the zeros of
heads and experts, ``histograms`` are the histograms of layers, and ``facts`` the figures that
readers show. ``schema`` declares every table's columns once; ``study_file`` saves and reads, with
``digest`` for whether a file is as it was written, ``agreement`` for what must fit across tables,
``recomputed`` for what measurements must agree with, and ``upgrade`` for files of the versions
before. ``harness_results`` reads what evaluation harnesses wrote of a variant, ``zero_shot`` takes from it
the table that papers print. ``combined`` makes one study of several, and ``pruning_methods`` sets their
ways to prune side by side. ``pair`` is two checkpoints compared weight by weight, which
``checkpoints`` does; ``pair_frames`` makes its tables, ``pair_cells`` what is drawn of them, and
``pair_file`` keeps it.

May import ``pairing`` and what is below it. Maintainers: integers in, integers out; unknown is
null, never 0; a share, ratio or break-even is computed by ``sparse.shares`` only. A column is added
in ``schema`` (with its title's translation), filled in its room, derived in ``upgrade`` for old
files, and ``docs/study.schema.json`` written anew (a test says how).
"""
