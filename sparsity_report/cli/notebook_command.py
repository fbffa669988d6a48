"""``sparsity-report notebook``: execute a notebook and export it."""

from pathlib import Path
from typing import Any

from sparsity_report.cli.compared_models import check_paths
from sparsity_report.cli.options import Model, NotebookOptions, dataclass_options
from sparsity_report.cli.outputs import check_writable
from sparsity_report.cli.terminal import tell

# Options of `sr.write_notebook`.
_EXPORTING = ("notebook", "hide_inputs", "language", "template_dir")


@dataclass_options
def notebook(model: Model = None, *, export: NotebookOptions) -> None:
    """Execute a notebook on a model and export it with its outputs."""
    check_paths(model)
    from sparsity_report.cli.policy_grid import read_sparsity

    level = read_sparsity(export.sparsity)
    check_writable(export.out)
    import sparsity_report as sr

    target = export.out / f"{Path(export.notebook).stem}.{export.to}"
    options: dict[str, Any] = {name: getattr(export, name) for name in _EXPORTING}
    sr.write_notebook(model, target, sparsity=level, **options)
    tell(f"Written to {target}")
