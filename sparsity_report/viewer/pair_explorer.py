"""The explorer of a pair: the viewer of where two checkpoints differ, for a notebook cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import traitlets

from sparsity_report.errors import SparsityReportError
from sparsity_report.findings.pair_labels import both
from sparsity_report.hooks import hooks
from sparsity_report.study.derived.heatmap_grid import Grid
from sparsity_report.study.pairs.pair import Pair
from sparsity_report.study.schema import COLUMNS
from sparsity_report.viewer.base_explorer import (
    BaseExplorer,
)
from sparsity_report.viewer.layer_values import arranged, in_scope, matching
from sparsity_report.viewer.pair_payload import (
    FIGURES,
    compared_layers,
    figure_values,
    pair_contents,
)
from sparsity_report.viewer.payload import encode

# Traits that have another name in the page.
_IN_PAGE = {"group": "modules", "module": "detail"}


class PairState(NamedTuple):
    """Values of the explorer's traits."""

    metric: str
    group: str
    search: str
    sort: str
    selection: tuple[str, ...]
    module: str | None


class PairExplorer(BaseExplorer):
    """Two checkpoints on one screen; every attribute here can be set and observed.

    Attributes
    ----------
    pair : Pair
        The two checkpoints.
    metric : str
        ``"moved"``: the share of the base's weights that is zero or removed, after − before;
        ``"kept_share"`` of the zeros; ``"revived_share"`` and ``"new_share"`` of the weights that
        are in both; ``"relative_change"``; or ``"iou"``, zeros in both ÷ zeros in either.
    group : str
        ``"prunable"``, ``"all"`` or a group of modules, for the map and the table.
    search : str
        Words that the names of layers in the table contain.
    sort : str
        ``"module"`` or a metric, with ``-`` before it for descending; empty in the order of the
        model.
    selection : tuple of str
        Names of the selected modules.
    module : str or None
        The layer in detail.

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> explorer = sr.explore(sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5)))
    >>> explorer.metric, explorer.group
    ('moved', 'prunable')
    """

    _state_type = PairState
    pair = traitlets.Instance(Pair, read_only=True)
    group = traitlets.Unicode().tag(sync=True)
    module = traitlets.Unicode(None, allow_none=True).tag(sync=True)

    def __init__(self, pair: Pair) -> None:
        self.set_trait("pair", pair)
        self._rows = compared_layers(pair)
        self._header, self._arrays = pair_contents(pair)
        start = {
            name: self._header["start"][_IN_PAGE.get(name, name)] for name in PairState._fields
        }
        super().__init__(encode(self._header, self._arrays), **start)

    @property
    def value(self) -> Pair:
        """The pair.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> explorer = sr.explore(pair)
        >>> explorer.value is explorer.pair
        True
        """
        pair: Pair = self.pair
        return pair

    def _page_payload(self) -> bytes:
        """Return a payload that starts with the state in view."""
        start = {_IN_PAGE.get(name, name): value for name, value in self.state._asdict().items()}
        return encode({**self._header, "start": start}, self._arrays)

    def layers(self) -> pd.DataFrame:
        """Return the layers of the table, in its order: the selected ones, or else those in view.

        The columns are those of ``pair.layers``, and the metrics.

        Returns
        -------
        pandas.DataFrame
            One row per layer.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> explorer = sr.explore(pair)
        >>> explorer.search = "fc1"
        >>> len(explorer.layers())
        4
        """
        rows = self._rows.assign(**{key: figure_values(self._rows, key) for key in FIGURES})
        rows = matching(rows, self.group, self.selection, self.search)
        return arranged(rows, self.sort, rows.__getitem__)

    @property
    def chart(self) -> Any:
        """The map of the metric in view as an Altair chart, ready for ``.save``.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> explorer = sr.explore(pair)
        >>> type(explorer.chart).__module__.startswith("altair")
        True
        """
        rows = in_scope(self._rows, self.group)
        grid = Grid(rows)
        cells = pd.DataFrame(grid.cells, columns=["block", "projection"])
        cells = cells.assign(value=figure_values(rows, self.metric, grid.codes))
        axes, metric = (grid.blocks, grid.projections), COLUMNS[self.metric]
        return hooks.chart(cells, axes, metric, both(self.pair))

    def copied(self, form: str = "python") -> str:
        """Return Python code that shows the same view of a pair of this name.

        Parameters
        ----------
        form : {"python"}
            The form of the view.

        Returns
        -------
        str
            The code.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pair = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> explorer = sr.explore(pair)
        >>> explorer.search = "fc1"
        >>> "explorer.search = 'fc1'" in explorer.copied()
        True
        """
        if form != "python":
            raise SparsityReportError(
                f"copied: {str(form)[:40]!r} is no form of a pair; use 'python'"
            )
        state, first = self.state._asdict(), self.states[0]._asdict()
        lines = [
            f"explorer.{name} = {value!r}" for name, value in state.items() if value != first[name]
        ]
        return "\n".join(["explorer = sr.explore(pair)", *lines, "explorer", ""])

    @traitlets.observe(*PairState._fields)
    def _changed(self, change: Any) -> None:
        if self._is_quiet or not self.states:
            return
        if change["name"] == "selection" and self.selection:
            with self._quietly():
                self.module = self.module if self.module in self.selection else self.selection[-1]
        self._note()

    def _choices(self, name: str) -> Sequence[str]:
        """Return the values that the menu of a trait offers."""
        keys = ("module", *FIGURES)
        known: dict[str, Sequence[str]] = {
            "metric": [*FIGURES],
            "group": self._header["scopes"],
            "sort": ["", *keys, *(f"-{key}" for key in keys)],
        }
        return known[name]

    @property
    def _module_names(self) -> Sequence[str]:
        """Names of the modules of the pair."""
        names: list[str] = self._header["modules"]["names"]
        return names
