"""``sparsity-report check``: rules for a checkpoint, for CI."""

import json
from typing import Annotated

import typer

from sparsity_report.cli.compared_models import check_paths
from sparsity_report.cli.options import CheckOptions, dataclass_options
from sparsity_report.cli.terminal import print_line


@dataclass_options
def check(
    model: Annotated[
        str, typer.Argument(help="Hub id, directory, .safetensors or .gguf file.", metavar="MODEL")
    ],
    *,
    options: CheckOptions,
) -> None:
    """Check a checkpoint against rules; exit with 0 if it keeps them, 1 if not, 2 on errors.

    Without rules, all values are read and notes about deployment are printed.
    """
    check_paths(model, options.base, options.mask_of)
    from sparsity_report.findings.wanted_bounds import Wanted, read_rules

    rules = Wanted(**{name: getattr(options, name) for name in Wanted.__annotations__})  # type: ignore[typeddict-item]
    read_rules(rules)
    import sparsity_report as sr

    checked = sr.check(model, **rules, **options.opening)
    for line in [json.dumps(checked.to_json())] if options.json else checked.sentences():
        print_line(line)
    raise typer.Exit(0 if checked else 1)
