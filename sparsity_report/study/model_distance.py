"""Distance between the predictions of two models on one text, token by token."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sparsity_report.hooks import Described
from sparsity_report.study.derived.block_bootstrap import mean_over
from sparsity_report.study.derived.losses import span_of, token_counts
from sparsity_report.study.schema import plain_records

Floats = npt.NDArray[np.float64]

# Ends of an interval.
_UNKNOWN = (np.nan, np.nan)


@dataclass(frozen=True, eq=False, repr=False)
class Distance(Described):
    """Distance between the predictions of two models on one text, token by token.

    Attributes
    ----------
    a, b : str
        Names of the models; `a` is the reference.
    tokens : pandas.DataFrame
        One row per scored token, in the order of the text: its ``position`` in the
        text and its id ``token``; ``guess_a`` and ``guess_b``, the ids that each model finds most
        likely; ``nll_a`` and ``nll_b``, negative log-likelihoods. ``kl`` is
        KL(a ‖ b) = Σ p·(ln p − ln q) over the vocabulary, p of `a`; ``reverse_kl`` is KL(b ‖ a).
        All are in nats. ``top5_agreement`` is the share of the five most likely tokens of `a`
        that are among the five of `b`.
    largest : pandas.DataFrame
        The ten tokens with the largest ``kl`` as text: ``position, kl, context, token, guess_a,
        guess_b``. Texts are null without a tokenizer.
    protocol : mapping
        The text and its windows, as in ``study.quality``. ``dtype`` is that of the parameters of
        `a`, ``dtype_b`` that of `b`.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> text = "def f(x): return x; " * 9
    >>> distance = sr.distance(weights, sr.masked(sr.global_magnitude(weights, 0.5)), text=text)
    >>> distance.a, bool((distance.tokens["kl"] >= 0).all())
    ('demo', True)
    """

    a: str
    b: str
    tokens: pd.DataFrame
    largest: pd.DataFrame
    protocol: Mapping[str, object]

    @cached_property
    def figures(self) -> pd.DataFrame:
        """Figures over all tokens: ``figure, value, low, high``.

        ``low`` and ``high`` are the ends of the 95 % interval of a mean, from a bootstrap of
        blocks of the text. They are null for other figures and for short texts.

        ``kl`` and ``reverse_kl`` are means, ``kl_median``, ``kl_p99`` and ``kl_max`` the median,
        the 99th percentile and the maximum of KL(a ‖ b), all in nats per token. ``agreement`` is
        the share of tokens with the same first guess, ``top5_agreement`` the mean share of the
        five most likely tokens that the models have in common. ``perplexity_ratio`` is the
        perplexity of `b` ÷ that of `a`. ``rms_delta_p`` is the root of the mean square of the
        change in the probability of the right token.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> text = "def f(x): return x; " * 9
        >>> distance = sr.distance(weights, sr.masked(sr.global_magnitude(weights, 0.5)), text=text)
        >>> figures = distance.figures.set_index("figure")["value"]
        >>> bool(figures["kl_max"] == distance.tokens["kl"].max())
        True
        """
        tokens = self.tokens
        kl, nll_a, nll_b = (tokens[name].to_numpy() for name in ("kl", "nll_a", "nll_b"))
        delta_p = np.exp(-nll_b) - np.exp(-nll_a)
        with np.errstate(invalid="ignore"):  # between two infinite divergences
            tail = np.quantile(kl, 0.99)
        rows = {
            "kl": _mean(kl, 0),
            "reverse_kl": _mean(tokens["reverse_kl"], 0),
            "kl_median": (np.median(kl), *_UNKNOWN),
            "kl_p99": (tail, *_UNKNOWN),
            "kl_max": (kl.max(), *_UNKNOWN),
            "agreement": _mean(tokens["guess_a"] == tokens["guess_b"], 0, 1),
            "top5_agreement": _mean(tokens["top5_agreement"], 0, 1),
            "perplexity_a": np.exp(_mean(nll_a)),
            "perplexity_b": np.exp(_mean(nll_b)),
            "perplexity_ratio": np.exp(_mean(nll_b - nll_a)),
            "rms_delta_p": (np.sqrt(np.mean(delta_p**2)), *_UNKNOWN),
        }
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
        return frame.rename_axis("figure").reset_index()

    def to_json(self) -> dict[str, Any]:
        """Return the models, the protocol, the figures and the largest divergences as plain values.

        Returns
        -------
        dict
            ``a``, ``b``, the items of `protocol`, ``figures`` and ``largest``. Null is unknown.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> measured = sr.distance(weights, sr.global_magnitude(weights, 0.5), "Text to score.")
        >>> measured.to_json()["b"]
        'Masked50'
        """
        tables = {"figures": self.figures, "largest": self.largest}
        rows = {key: plain_records(frame) for key, frame in tables.items()}
        return {"a": self.a, "b": self.b, **self.protocol, **rows}


def _mean(values: npt.ArrayLike, low: float = -np.inf, high: float = np.inf) -> Floats:
    """Return the mean of a figure of tokens and the ends of its interval, NaN if unknown."""
    figures = np.asarray(values, dtype=np.float64)
    span = span_of(len(figures))
    sums = np.add.reduceat(figures, np.arange(0, len(figures), span))
    mean = mean_over(sums, token_counts(len(figures), span))
    ends = mean.interval() if mean else _UNKNOWN
    return np.array([figures.mean(), *np.clip(ends, low, high)])
