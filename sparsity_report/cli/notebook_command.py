"""``sparsity-report notebook``: execute a notebook and export it."""

from pathlib import Path
from typing import Any

from sparsity_report.cli.compared_models import check_paths
from sparsity_report.cli.options import Model, NotebookOptions, dataclass_options
from sparsity_report.cli.terminal import print_line
from sparsity_report.files.atomic import check_folder

# Options of `sr.write_notebook`.
_EXPORTING = ("notebook", "hide_inputs", "template_dir")


@dataclass_options
def notebook(model: Model = None, *, export: NotebookOptions) -> None:
    """Execute a notebook on a model and export it with its outputs."""
    check_paths(model, export.base)
    from sparsity_report.cli.policy_grid import read_sparsity

    level = read_sparsity(export.sparsity)
    targets = export.out or [Path("results", f"{Path(export.notebook).stem}.html")]
    for target in targets:
        check_folder(target.parent)
    import sparsity_report as sr
    from sparsity_report.report.notebook import notebook_file

    # No cell runs if one of several files cannot be written.
    targets = [*map(notebook_file, targets)]
    options: dict[str, Any] = {name: getattr(export, name) for name in _EXPORTING}
    options["options"] = {name: value for name, value in export.opening.items() if value}
    for target in targets:
        sr.write_notebook(model, target, sparsity=level, **options)
        print_line(f"Written to {target}")
