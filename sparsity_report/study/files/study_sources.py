"""Sources of studies: values, files of studies, and logs of zeros over training."""

import os
from pathlib import Path
from typing import Protocol, TypeAlias

from sparsity_report.errors import SparsityReportError
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.files.json_files import read_figures
from sparsity_report.study.files.track_files import is_log, read_log


class HasStudy(Protocol):
    """A value with a study, such as an explorer."""

    @property
    def study(self) -> StudyFigures:
        """The study."""


#: A study, an explorer, or the path of a saved study.
StudySource: TypeAlias = StudyFigures | HasStudy | str | os.PathLike[str]


def read_saved(path: str | os.PathLike[str], *, strict: bool = False) -> StudyFigures:
    """Read the study in a JSON file or in a log of zeros, which its content tells."""
    if not is_log(Path(path)):
        return read_figures(path, strict=strict)
    if strict:
        raise SparsityReportError(f"{path}: a log has no digest; read it without strict")
    return read_log(path).study()


def study_or_saved(function: str, value: object) -> StudyFigures:
    """Return a study, the study of an explorer, or the study that a path names.

    Parameters
    ----------
    function : str
        Public function that received the value, for error messages.
    value : object

    Raises
    ------
    SparsityReportError
        The value is none of them, or the file cannot be read.

    Examples
    --------
    >>> study_or_saved("explore", [])
    Traceback (most recent call last):
    sparsity_report.errors.SparsityReportError: explore: list is not Study; give a Study, an ...
    """
    if isinstance(value, str | os.PathLike):
        return read_saved(value)
    study = getattr(value, "study", value)
    if not isinstance(study, StudyFigures):
        raise SparsityReportError(
            f"{function}: {type(value).__name__} is not Study; give a Study, an explorer, or the "
            "path of a saved study"
        )
    return study
