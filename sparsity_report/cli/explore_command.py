"""``sparsity-report explore``: the explorer as a page, without a notebook."""

from __future__ import annotations

from sparsity_report.cli.compared_models import check_paths, compared
from sparsity_report.cli.options import Analysis, Choice, ExploreOptions, Models, dataclass_options
from sparsity_report.cli.terminal import print_line, quiet_libraries
from sparsity_report.errors import SparsityReportError
from sparsity_report.files.atomic import check_folder


@dataclass_options
def explore(models: Models = None, *, choice: Choice, options: ExploreOptions) -> None:
    """Write the explorer of models as one page, which needs neither a kernel nor a network."""
    check_paths(*(models or ()), options.base)
    if options.out.suffix.lower() != ".html":
        raise SparsityReportError(f"--out {options.out} is no page; give a name that ends in .html")
    check_folder(options.out.parent)
    from sparsity_report.cli.policy_grid import check_experts, read_policies

    check_experts(choice, read_policies(choice.policy, choice.sparsity))
    import sparsity_report as sr
    from sparsity_report.report.page import write_explorer

    with quiet_libraries():
        analysis = Analysis(by_names=options.by_names, **options.opening)
        variants = compared(models or [], choice, analysis).variants
        page = write_explorer(sr.compare(*variants, patterns=True), options.out)
    print_line(f"Written to {page}")
