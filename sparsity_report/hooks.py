"""Hooks by which values reach the wings above them; ``api`` connects them on import."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class Hooks:
    """Functions of the wings above, called by values of the wings below.

    Attributes
    ----------
    describe : callable
        Text that ``repr`` of a value shows.
    mime_bundle : callable
        A value as HTML, LaTeX and text for a notebook cell, by MIME type.
    sentences : callable
        Findings about a study, most important first.
    audit : callable
        What a careful reviewer would flag in a study.
    save : callable
        Write a study as JSON.
    content : callable
        Return the content of the file of a study.
    chart : callable
        Heat map of a metric as an Altair chart.
    progress_bar : callable
        A progress bar for a notebook or a terminal.
    """

    describe: Callable[[Any], str]
    mime_bundle: Callable[[Any], dict[str, str]]
    sentences: Callable[[Any], list[str]]
    audit: Callable[[Any], list[str]]
    save: Callable[[Any, str | os.PathLike[str]], Path]
    content: Callable[[Any], dict[str, Any]]
    chart: Callable[..., Any]
    progress_bar: Callable[..., Any]


hooks = Hooks()


class Presentable:
    """A value that shows itself: as text in ``repr``, as HTML and LaTeX in a notebook cell."""

    def __repr__(self) -> str:
        return hooks.describe(self)

    def _repr_mimebundle_(
        self,
        include: Iterable[str] | None = None,  # noqa: ARG002
        exclude: Iterable[str] | None = None,  # noqa: ARG002
    ) -> dict[str, str]:
        """Return the value as HTML, LaTeX and text, for the front end to choose from."""
        return hooks.mime_bundle(self)


class Described:
    """A value that sentences describe."""

    def __repr__(self) -> str:
        return "\n".join(self.sentences())

    def sentences(self) -> list[str]:
        """Return the findings about the value as sentences, most important first.

        Returns
        -------
        list of str
            Sentences.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> weights = sr.load()
        >>> study = sr.compare_checkpoints(weights, sr.global_magnitude(weights, 0.5))
        >>> isinstance(study.sentences()[0], str)
        True
        """
        return hooks.sentences(self)


class Saved(Presentable):
    """A value that a JSON file holds."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the value as JSON, which :func:`read_study` reads back.

        Parameters
        ----------
        path : path-like
            The file to write.

        Returns
        -------
        pathlib.Path
            The file.

        Examples
        --------
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import sparsity_report as sr
        >>> study = sr.compare(sr.dense(sr.load()))
        >>> with TemporaryDirectory() as folder:
        ...     again = sr.read_study(study.save(Path(folder, "study.json")))
        >>> again.fingerprint == study.fingerprint
        True
        """
        return hooks.save(self, path)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file that :meth:`save` writes, as plain values.

        Returns
        -------
        dict
            Tables as lists of rows; null is unknown.

        Examples
        --------
        >>> import sparsity_report as sr
        >>> sr.compare(sr.dense(sr.load())).to_json()["format"]
        'sparsity-report/study'
        """
        return hooks.content(self)
