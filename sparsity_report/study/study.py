"""Several variants side by side: one frozen value that can be saved, read and rendered."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sparsity_report
from sparsity_report.counting.counts import Progress, count_notes
from sparsity_report.errors import SparsityReportError
from sparsity_report.files import file_name, write_file
from sparsity_report.measure.latency import LATENCY_COLUMNS
from sparsity_report.measure.perplexity import QUALITY_COLUMNS
from sparsity_report.measure.sensitivity import SENSITIVITY_COLUMNS
from sparsity_report.study.agreement import check_parts
from sparsity_report.study.facts import Facts
from sparsity_report.study.layers import (
    LAYER_COLUMNS,
    check_convention,
    group_frame,
    total_frame,
    with_shares,
)
from sparsity_report.study.levels import LEVEL_COLUMNS, Levels, level_table
from sparsity_report.study.patterns import PATTERN_COLUMNS, variant_patterns
from sparsity_report.study.storage import storage_frame
from sparsity_report.study.variants import Variant
from sparsity_report.weights.weights import Weights
from sparsity_report.words.language import speaking

FORMAT = "sparsity-report study"
VERSION = 1
MEASURED = {
    "latency": LATENCY_COLUMNS,
    "quality": QUALITY_COLUMNS,
    "sensitivity": SENSITIVITY_COLUMNS,
}
PIVOTS = ("sparsity", "param_frac", "flops_per_token")
VARIANT_COLUMNS = (
    "variant",
    "layout",
    "model",
    "architecture",
    "source",
    "fingerprint",
    "method",
    "asked_sparsity",
    "pruned",
    "threshold",
    "attention_width",
    "attention_flops_per_token",
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What pruning does to a model, as data. Renderers take this and never touch a model.

    Attributes
    ----------
    variants : pandas.DataFrame
        One row per variant: model, source, fingerprint, method, asked sparsity, threshold.
    layers : pandas.DataFrame
        One row per variant and module, columns ``structure.LAYER_COLUMNS``.
    convention : str
        ``"standard"`` or ``"notebook"``.
    context : int or None
        Number of positions a token attends to, for the FLOPs of attention itself.
    patterns : pandas.DataFrame or None
        Where in each matrix the zeros stand, see :func:`sparsity_report.weight_patterns`.
    notes : tuple of str
        How the models were opened, as far as a careful reader should know.
    levels : pandas.DataFrame or None
        What global magnitude pruning leaves of each prunable module of the first variant's
        weights at every percent, see :func:`sparsity_report.study.levels.level_table`.
    latency, quality, sensitivity : pandas.DataFrame or None
        What was measured by running variants, by :func:`sparsity_report.measure_latency`,
        :func:`sparsity_report.perplexity` and :func:`sparsity_report.sensitivity`; put in with
        :meth:`with_measured`.
    weights : Weights or None
        The first variant's weights, for exact further levels. Not saved.
    """

    variants: pd.DataFrame
    layers: pd.DataFrame
    convention: str = "standard"
    context: int | None = None
    patterns: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
    levels: pd.DataFrame | None = None
    latency: pd.DataFrame | None = None
    quality: pd.DataFrame | None = None
    sensitivity: pd.DataFrame | None = None
    weights: Weights | None = field(default=None, repr=False)

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Sums per variant and group."""
        return group_frame(self.layers)

    @cached_property
    def totals(self) -> pd.DataFrame:
        """Sums per variant, with three sparsities that each name their denominator."""
        asked = self.variants[["variant", "layout", "asked_sparsity", "pruned", "threshold"]]
        frame = asked.merge(total_frame(self.layers), on="variant", how="left")
        if self.context is not None:
            frame["attention_flops_per_token"] = self.variants["attention_flops_per_token"]
        return frame

    @cached_property
    def facts(self) -> Facts:
        """What every reader needs of the study, each figure computed once."""
        return Facts(self)

    @property
    def audit(self) -> list[str]:
        """What a careful reviewer would flag, in sentences with numbers."""
        from sparsity_report.findings.audit import audit

        return audit(self)

    @cached_property
    def storage(self) -> pd.DataFrame:
        """Bytes in every layout, see :func:`sparsity_report.study.storage.storage_frame`."""
        return storage_frame(self.layers, self.patterns)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that stand for the variants and every count of the study."""
        data = [_table(self.variants), _table(self.layers), self.convention, self.context]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]

    @property
    def unclassified(self) -> tuple[str, ...]:
        """Names of modules no rule knows; they are counted under ``other``."""
        names = self.layers.loc[self.layers["group"] == "other", "module_name"]
        return tuple(dict.fromkeys(names))

    @cached_property
    def by_level(self) -> Levels | None:
        """The first variant's model at every kept level; None where :attr:`levels` is."""
        if self.levels is None:
            return None
        first = self.layers["variant"] == self.variants["variant"].iloc[0]
        return Levels(self.layers[first], self.levels)

    def at_level(self, sparsity: float) -> pd.DataFrame:
        """Return every layer of the first variant's model at one kept level; no model is touched.

        Parameters
        ----------
        sparsity : float
            0, 0.01, … 0.99 of the prunable weights; every 0.05 above 10,000 modules.

        Returns
        -------
        pandas.DataFrame
            As of :func:`sweep`, with ``uncertainty`` in weights, see there.

        Raises
        ------
        SparsityReportError
            The study has no levels, or not this one.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> study = sr.compare(sr.dense(sr.load()))
        >>> frame = study.at_level(0.5)
        >>> bool(frame["csr_bytes"].sum() > frame["dense_bytes"].sum())
        True
        """
        if self.by_level is None:
            raise SparsityReportError(
                "the study keeps no levels: nothing is prunable, or values are not known"
            )
        return self.by_level.at(sparsity)

    def with_variants(self, *variants: Variant, progress: Progress | None = None) -> Comparison:
        """Return the study with further variants behind its own.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> study = sr.compare(sr.dense(sr.load()))
        >>> more = study.with_variants(sr.csr(sr.global_magnitude(study.weights, 0.6)))
        >>> more.variants["variant"].tolist()
        ['Dense', 'CSR60']
        """
        if not variants:
            return self
        further = compare(
            *variants,
            convention=self.convention,
            context=self.context,
            patterns=self.patterns is not None,
            progress=progress,
        )
        names = [*self.variants["variant"], *further.variants["variant"]]
        _check_distinct(names)
        parts = {
            part: pd.concat([getattr(self, part), getattr(further, part)], ignore_index=True)
            for part in ("variants", "layers", "patterns")
            if getattr(self, part) is not None
        }
        parts["variants"] = _variant_types(parts["variants"])
        parts["layers"] = with_shares(parts["layers"])
        return replace(self, **parts, notes=tuple(dict.fromkeys([*self.notes, *further.notes])))

    def pivot(self, metric: str) -> pd.DataFrame:
        """Return a table of groups × variants for one column of :attr:`groups`.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> pruning = sr.global_magnitude(weights, sparsity=0.3)
        >>> study = sr.compare(sr.dense(weights), sr.masked(pruning))
        >>> list(study.pivot("sparsity").columns)
        ['Dense', 'Masked30']
        """
        if metric not in self.groups.columns[2:]:
            raise SparsityReportError(
                f"no metric {metric!r}; use one of {', '.join(self.groups.columns[2:])}"
            )
        order = list(dict.fromkeys(self.groups["group"]))
        indexed = self.groups.set_index(["group", "variant"])[metric]
        return indexed.unstack().reindex(index=order, columns=list(self.variants["variant"]))

    def with_measured(
        self,
        *,
        latency: pd.DataFrame | None = None,
        quality: pd.DataFrame | None = None,
        sensitivity: pd.DataFrame | None = None,
    ) -> Comparison:
        """Return the study with what was measured put in; what is not given stays as it is.

        Raises
        ------
        SparsityReportError
            A frame has other columns than those of the function that measures it.
        """
        given = {"latency": latency, "quality": quality, "sensitivity": sensitivity}
        for part, frame in given.items():
            if frame is not None and tuple(frame.columns) != MEASURED[part]:
                raise SparsityReportError(
                    f"{part}= takes the frame of the function that measures it, with the columns "
                    f"{', '.join(MEASURED[part])}"
                )
        return replace(
            self,
            latency=self.latency if latency is None else latency,
            quality=self.quality if quality is None else quality,
            sensitivity=self.sensitivity if sensitivity is None else sensitivity,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the study as JSON, to be read back exactly by :func:`read_study`."""
        return write_file(path, json.dumps(self._as_json(), ensure_ascii=False, allow_nan=False))

    def _sentences(self) -> list[str]:
        from sparsity_report.findings.summary import summarize

        with speaking("en"):  # as all the file
            return summarize(self)

    def _as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "written_by": f"sparsity-report {sparsity_report.__version__}",
            "convention": self.convention,
            "context": self.context,
            "notes": list(self.notes),
            # For readers without this program, which says them anew from the numbers.
            "findings": self._sentences(),
            **{
                part: _table(getattr(self, part))
                for part in ("variants", "layers", "groups", "totals")
            },
            "levels": None if self.levels is None else _level_matrix(self.levels),
            **{
                part: None if frame is None else _table(frame)
                for part in ("patterns", *MEASURED)
                for frame in (getattr(self, part),)
            },
        }


def compare(
    *variants: Variant,
    convention: str = "standard",
    context: int | None = None,
    patterns: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Put variants side by side.

    Parameters
    ----------
    *variants : Variant
        From :func:`dense`, :func:`masked`, :func:`csr`; any number, of one model or several.
    convention : {"standard", "notebook"}
        ``"notebook"`` charges embedding look-ups ``2·V·d`` and counts a tied head again in totals
        and shares.
    context : int, optional
        Number of positions a token attends to. With it ``totals`` has a column
        ``attention_flops_per_token`` for scores and weighted values,
        ``2·context·(query width + value width)`` per attention layer, of a sliding window at most
        its positions; null where the model's attention is not known.
    patterns : bool
        Whether to look also at where in each matrix the zeros stand, which reads the prunable
        weights once more; see :func:`sparsity_report.weight_patterns`.
    progress : callable, optional
        See :func:`sparsity_report.counting.counts.count_weights`.

    Returns
    -------
    Comparison

    Examples
    --------
    >>> import sparsity_report as sr
    >>> weights = sr.load()
    >>> pruning = sr.global_magnitude(weights, sparsity=0.3)
    >>> study = sr.compare(sr.dense(weights), sr.masked(pruning), sr.csr(pruning))
    >>> study.totals["variant"].tolist()
    ['Dense', 'Masked30', 'CSR30']
    """
    check_convention(convention)
    _check_context(context)
    if not variants:
        raise SparsityReportError("nothing to compare: give at least one variant")
    _check_distinct([variant.name for variant in variants])
    frames = [variant.layers(convention, progress) for variant in variants]
    facts = pd.DataFrame([v.facts(context) for v in variants], columns=list(VARIANT_COLUMNS))
    models = dict.fromkeys(variant.weights for variant in variants)
    notes = dict.fromkeys(note for model in models for note in model.notes + count_notes(model))
    return Comparison(
        variants=_variant_types(facts),
        layers=pd.concat(frames, ignore_index=True),
        convention=convention,
        context=context,
        patterns=variant_patterns(variants, progress) if patterns else None,
        notes=tuple(notes),
        levels=level_table(variants[0].weights),
        weights=variants[0].weights,
    )


def read_study(path: str | os.PathLike[str]) -> Comparison:
    """Read a study written by :meth:`Comparison.save`.

    Raises
    ------
    SparsityReportError
        The file is damaged, from a newer version, or disagrees with itself.
    """
    source = Path(path)
    try:
        data = json.loads(source.read_text(encoding="utf-8"), parse_constant=_no_number)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise SparsityReportError(f"{source} is not a study of sparsity-report")
        if data["version"] > VERSION:
            raise SparsityReportError(
                f"{source} is of version {data['version']}, newer than this program's {VERSION}; "
                "upgrade sparsity-report"
            )
        variants = _frame(data["variants"], VARIANT_COLUMNS)
        layers = _frame(data["layers"], LAYER_COLUMNS).astype({"prunable": bool})
        layers["shape"] = [tuple(shape) for shape in layers["shape"]]
        study = Comparison(
            variants=_variant_types(variants),
            layers=with_shares(layers),
            convention=data["convention"],
            context=data["context"],
            patterns=_read_patterns(data["patterns"]),
            notes=tuple(data["notes"]),
            levels=_read_levels(data["levels"]),
            latency=_read_measured("latency", data),
            quality=_read_measured("quality", data),
            sensitivity=_read_measured("sensitivity", data),
        )
        check_convention(study.convention)
        _check_context(study.context)
        if not all(isinstance(note, str) for note in study.notes):
            raise ValueError("notes: are not text")
        measured = {part: getattr(study, part) for part in MEASURED}
        check_parts(study.variants, study.layers, study.levels, study.patterns, measured)
        _check_agrees(study, data)
    except SparsityReportError:
        raise
    except OSError as error:
        raise SparsityReportError(f"cannot read {source}: {error.strerror or error}") from error
    except (
        ValueError, KeyError, TypeError, RecursionError, AttributeError, OverflowError, IndexError
    ) as error:  # fmt: skip
        raise SparsityReportError(f"{source} is damaged: {error!r}") from error
    return study


def write_csv(study: Comparison, directory: str | os.PathLike[str]) -> list[Path]:
    """Write the study as CSV files for a spreadsheet.

    Per variant ``layers_<variant>.csv`` and ``groups_<variant>.csv``; all variants together as
    ``comparison.csv`` (per group), ``totals.csv`` and ``storage.csv``; ``pivot_<metric>.csv``; and
    what was measured as ``latency.csv``, ``quality.csv`` and ``sensitivity.csv``. Text that a
    spreadsheet would take for a formula gets a leading apostrophe.

    Parameters
    ----------
    study : Comparison
    directory : path-like
        Made if missing.

    Returns
    -------
    list of pathlib.Path
        What was written.
    """
    folder = Path(directory)
    files = {}
    for variant, stem in variant_stems(study).items():
        for kind, frame in (("layers", study.layers), ("groups", study.groups)):
            files[f"{kind}_{stem}.csv"] = frame[frame["variant"] == variant]
    files["comparison.csv"] = study.groups
    files["totals.csv"] = study.totals
    files["storage.csv"] = study.storage
    files |= {
        f"{part}.csv": frame for part in MEASURED if (frame := getattr(study, part)) is not None
    }
    for metric in PIVOTS:
        files[f"pivot_{metric}.csv"] = study.pivot(metric).reset_index()
    return [
        write_file(folder / name, _inert(frame).to_csv(index=False, lineterminator="\n"))
        for name, frame in files.items()
    ]


def variant_stems(study: Comparison) -> Mapping[str, str]:
    """Give each variant a file name part of its own."""
    stems: dict[str, str] = {}
    for variant in study.variants["variant"]:
        stem = base = file_name(variant)
        number = 2
        while stem in stems.values():
            stem, number = f"{base}-{number}", number + 1
        stems[variant] = stem
    return stems


def _inert(frame: pd.DataFrame) -> pd.DataFrame:
    def guard(cell: object) -> object:
        risky = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        return f"'{cell}" if risky else cell

    safe = frame.rename(columns=lambda name: guard(name))
    for column in safe.columns[[not pd.api.types.is_numeric_dtype(t) for t in safe.dtypes]]:
        safe[column] = safe[column].map(guard)
    return safe


def _table(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns and rows of plain values; what is unknown is null."""
    columns = [[_plain(cell) for cell in frame[column]] for column in frame.columns]
    return {
        "columns": list(frame.columns),
        "rows": [list(row) for row in zip(*columns, strict=True)],
    }


def _plain(cell: Any) -> Any:
    if isinstance(cell, tuple):
        return list(cell)
    if cell is None or cell is pd.NA:
        return None
    if hasattr(cell, "item"):
        cell = cell.item()
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _frame(table: Mapping[str, Any], columns: tuple[str, ...]) -> pd.DataFrame:
    if tuple(table["columns"]) != columns:
        raise ValueError(f"columns {table['columns']}")
    # Short rows would be filled up with nothing.
    for place, row in enumerate(table["rows"]):
        if not isinstance(row, list) or len(row) != len(columns):
            raise ValueError(f"row {place} does not have {len(columns)} cells: {str(row)[:60]}")
    return pd.DataFrame(table["rows"], columns=list(columns))


def _variant_types(frame: pd.DataFrame) -> pd.DataFrame:
    """Give the columns of variants the same types whatever their values."""
    frame = frame.copy()
    for column in ("pruned", "attention_width", "attention_flops_per_token"):
        frame[column] = frame[column].astype("Int64")
    for column in ("asked_sparsity", "threshold"):
        frame[column] = frame[column].astype(float)
    for column in ("variant", "layout", "model", "architecture", "source", "fingerprint", "method"):
        frame[column] = frame[column].astype(object).where(frame[column].notna(), None)
    return frame


def _read_patterns(table: Mapping[str, Any] | None) -> pd.DataFrame | None:
    if table is None:
        return None
    frame = _frame(table, PATTERN_COLUMNS)
    for column in ("block", "expert"):
        frame[column] = frame[column].astype("Int64")
    for column in PATTERN_COLUMNS[8:]:
        if column == "head_sparsity":
            cells = [None if cell is None else tuple(cell) for cell in frame[column]]
            frame[column] = pd.Series(cells, dtype=object)
        elif column != "n_m":
            frame[column] = frame[column].astype(float)
    return frame


def _level_matrix(levels: pd.DataFrame) -> dict[str, Any]:
    """One row of counts per module: an eighth of the size of a table."""
    steps = levels["sparsity"].unique()
    shape = (-1, len(steps))
    return {
        "modules": levels["module_name"].iloc[:: len(steps)].tolist(),
        "sparsities": steps.tolist(),
        **{key: levels[key].to_numpy().reshape(shape).tolist() for key in LEVEL_COLUMNS[2:]},
    }


def _read_levels(matrix: Mapping[str, Any] | None) -> pd.DataFrame | None:
    if matrix is None:
        return None
    modules, steps = matrix["modules"], matrix["sparsities"]
    counts = {key: np.array(matrix[key]) for key in LEVEL_COLUMNS[2:]}
    for key, own in counts.items():
        if own.shape != (len(modules), len(steps)) or own.dtype.kind != "i":
            raise ValueError(f"levels, {key}: is not one whole number per module and sparsity")
    return pd.DataFrame(
        {
            "module_name": np.repeat(np.array(modules, dtype=object), len(steps)),
            "sparsity": np.tile(np.array(steps, dtype=float), len(modules)),
            **{key: own.ravel() for key, own in counts.items()},
        }
    )


def _read_measured(part: str, data: Mapping[str, Any]) -> pd.DataFrame | None:
    return None if data[part] is None else _frame(data[part], MEASURED[part])


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no number of a study")


def _check_distinct(names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SparsityReportError(
            f"two variants are called {twice[0]!r}; give one of them another name="
        )


def _check_context(context: int | None) -> None:
    whole = isinstance(context, int) and not isinstance(context, bool)
    if context is not None and not (whole and context > 0):
        raise SparsityReportError(f"context must be a positive number of tokens, not {context!r}")


def _check_agrees(study: Comparison, data: Mapping[str, Any]) -> None:
    """Refuse a file whose tables no longer follow from its layers."""
    for part in ("layers", "groups", "totals"):
        expected, found = _table(getattr(study, part)), data[part]
        if expected["columns"] != found["columns"] or len(expected["rows"]) != len(found["rows"]):
            raise ValueError(f"table {part} does not follow from the layers")
        for number, (want, have) in enumerate(zip(expected["rows"], found["rows"], strict=True)):
            for column, a, b in zip(expected["columns"], want, have, strict=True):
                if a != b:
                    raise ValueError(f"{part}, row {number}, {column}: {b!r} should be {a!r}")
