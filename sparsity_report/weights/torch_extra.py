"""The extra ``[torch]``: torch and transformers, which only some models and measurements need."""

import re
import sys

from sparsity_report.errors import SparsityReportError, first_line, ran_out

#: Libraries of the extra, each with its oldest version that works.
OLDEST = {"torch": "2.13", "transformers": "5.24"}
#: Advice that names the libraries, since an index may serve another package by our name.
TORCH_COMMAND = "run pip install {} (the extra [torch])".format(
    " ".join(f"'{name}>={oldest}'" for name, oldest in OLDEST.items())
)


def need_torch(where: str, facts: str = "") -> None:
    """Import torch and transformers, or refuse in one line with the command to run.

    Parameters
    ----------
    where : str
        Model or option that needs the libraries.
    facts : str
        Facts that do not decide the model, so that its class is needed.

    Raises
    ------
    SparsityReportError
        A library is not installed, too old or broken.
    """
    reason = f", and {facts} do not decide the model" if facts else ""
    instead = ", or take groups from names (--by-names or config=False)" if facts else ""
    try:
        import torch
        import transformers
    except (ImportError, OSError) as error:
        if ran_out(error):
            raise
        name = "transformers" if sys.modules.get("torch") else "torch"
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == name
        broken = f"cannot be imported ({first_line(error)}), so install it again"
        fault = f"{name} {'is not installed' if is_missing else broken}{reason}"
        raise SparsityReportError(f"{where}: {fault}; {TORCH_COMMAND}{instead}") from error
    for library in (torch, transformers):
        name, version = library.__name__, library.__version__
        if _numbers(version)[:2] < _numbers(OLDEST[name]):
            raise SparsityReportError(f"{where}: {name} {version} is too old; {TORCH_COMMAND}")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
