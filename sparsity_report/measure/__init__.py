"""The only rooms that run a model.

- `texts`: what is scored; `protocols`: its windows, under the names that papers use.
- `model_stage`: one model that becomes each of its variants in turn; `scoring`: what they say of a text.
- `perplexity`, `sensitivity`, `continuations`, `latency`: each study → frame.

`calibration` measures what matrices are multiplied with on a text, `wanda` prunes by it, and a
`policy_grid` has all policies by name.

May import ``study`` and all below it. What is timed is made by ``timed_calls``, timed by ``clock``,
which keeps a control beside it, given its bounds by ``ratio_intervals``, with weights from memory by
``cold_cache``, on what ``machine`` looks at; ``crossover`` times layers at several sparsities, and
``study.speed`` says what of it all may be told.

Maintainers: variants are timed in turn, so that a drift of the machine hits them alike; a text is
scored by one protocol that every row carries; a model that is pruned for a measurement is put
back.
"""
