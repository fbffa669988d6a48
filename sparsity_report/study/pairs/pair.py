"""The comparison of two checkpoints, weight by weight, as one frozen value."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from sparsity_report.hooks import Described, Saved
from sparsity_report.study.derived.tracker_metrics import pair_metrics
from sparsity_report.study.pairs import pair_frames

# Models with at least this many compared weights are unrelated below this correlation.
UNRELATED, ENOUGH = 0.1, 1000


@dataclass(frozen=True, eq=False, repr=False)
class Pair(Saved, Described):
    """A base checkpoint and a model made from it, as data that can be saved, read and rendered.

    Attributes
    ----------
    models : pandas.DataFrame
        ``side`` (``before``, ``after``), ``model``, ``architecture``, ``source``.
    layers : pandas.DataFrame
        One row per module of the base, then one per module that only the model after has.

        ``module_name`` and ``block`` are those of the base; ``after_name`` is the matching module,
        null if it was removed. ``alignment`` names how the two were matched, with ``certainty``.
        In a ``rotated`` module no single weight is matched, so nothing is compared.

        ``weight_*`` and ``zeros_*`` count all weights of each side, ``compared`` the weights that
        both have. Of those, ``kept`` are zero in both, ``revived`` only before, ``new`` only after;
        ``changed`` are nonzero in both with different values.

        For the weights that are nonzero in both, ``norm`` is the norm before, ``relative_change``
        the norm of the change ÷ the norm before, and ``correlation`` the cosine. ``iou`` is the
        number of common zeros ÷ the zeros of either. ``untouched`` is true if every parameter,
        biases included, is unchanged.

        ``n_m_*`` is the sparsest of 1:4, 2:8, 2:4 and 4:8 that 99 % of the groups comply with, or
        null. ``kv_cache_*`` are the bytes that a token adds to the key-value cache, null if
        unknown.
    removed : pandas.DataFrame
        One row per removed part of the base: ``kind``, ``module`` and ``index`` (of ``among`` such
        parts; null if unknown), the ``certainty`` that this one was removed, and the ``weights``,
        ``parameters``, ``bytes`` and ``flops_per_token`` removed with it. A weight is counted once,
        with the largest removed part that contains it.
    before, after : pandas.DataFrame
        The table ``layers`` of a study of each model.
    notes : tuple of str
        Remarks on how the models were opened and matched.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
    >>> pair.models["side"].tolist(), len(pair.removed)
    (['before', 'after'], 0)
    """

    models: pd.DataFrame
    layers: pd.DataFrame
    removed: pd.DataFrame
    before: pd.DataFrame
    after: pd.DataFrame
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", tuple(dict.fromkeys(self.notes)))

    @cached_property
    def taken(self) -> int:
        """Number of prunable weights of the base that were removed.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> pair.taken  # zeros are not removed
        0
        """
        rows = self.layers[self.layers["prunable"]]
        return int(pair_frames.gone_weights(rows).sum())

    @cached_property
    def totals(self) -> pd.DataFrame:
        """Sums over the whole of both models: ``figure, before, after, removed, share``.

        The figures are ``prunable_weights``, ``parameters``, ``active_parameters`` and
        ``flops_per_token`` of a token, ``stored_bytes`` and ``kv_cache_bytes_per_token``.
        ``removed`` is before − after, so it is negative if something was added. Zeros that are
        still stored are not removed.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> pair.totals.set_index("figure")["removed"]["parameters"]
        0
        """
        return pair_frames.total_sums(self.before, self.after, self.layers)

    @cached_property
    def groups(self) -> pd.DataFrame:
        """The same sums as :attr:`totals` per ``group``.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> {"attention_linear", "mlp_linear"} <= {*pair.groups["group"]}
        True
        """
        return pair_frames.group_sums(self.before, self.after, self.layers)

    @cached_property
    def sparsities(self) -> pd.DataFrame:
        """Shares of zeros ``of`` three totals, under three names.

        The totals are ``prunable`` weights, ``non_embedding`` parameters and the whole ``model``.
        ``sparsity_before`` is that of the base, ``sparsity_itself`` that of the model after.
        ``gone_of_base`` is 1 − the common nonzeros ÷ all of the base: what is zero or removed. It
        is null if the model after is larger or has additions that are not identified.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> pair.sparsities.set_index("of").loc["prunable"].round(3).to_dict()
        {'sparsity_before': 0.0, 'sparsity_itself': 0.5, 'gone_of_base': 0.5}
        """
        return pair_frames.sparsity_frame(self.before, self.after, self.layers)

    @cached_property
    def survival(self) -> pd.DataFrame:
        """Fate of zeros per ``group`` of prunable weights, the first row (null) for all.

        Of the weights that both models have, ``zeros_before`` = ``kept`` + ``revived`` and
        ``zeros_after`` = ``kept`` + ``new``. ``kept_share`` is kept ÷ zeros before, ``iou`` is
        kept ÷ zeros of either. Of ``surviving`` weights, nonzero in both, ``changed`` have another
        value. Of the ``modules``, ``untouched`` are unchanged.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> int(pair.survival["new"].iloc[0])  # all of the 393,216 zeros
        393216
        """
        return pair_frames.survival_frame(self.layers)

    def metrics(self) -> dict[str, float]:
        """Return a flat dict of figures for experiment trackers.

        Returns
        -------
        dict of str to float
            Figures by name, such as ``sparsity/prunable/before`` and ``zeros/revived``. Unknown
            figures are left out.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> pair.metrics()["zeros/revived"]
        0.0
        """
        return pair_metrics(self.sparsities, self.totals, self.survival)
