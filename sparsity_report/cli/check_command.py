"""``sparsity-report check``: rules for a checkpoint, for CI."""

import json
from dataclasses import fields
from typing import Annotated

import typer

from sparsity_report.cli.options import CheckOptions, dataclass_options
from sparsity_report.cli.terminal import print_line
from sparsity_report.errors import SparsityReportError


@dataclass_options
def check(
    model: Annotated[
        str | None,
        typer.Argument(help="Hub id, directory, .safetensors or .gguf file.", metavar="MODEL"),
    ] = None,
    *,
    options: CheckOptions,
) -> None:
    """Check a checkpoint against rules; exit with 0 if it keeps them, 1 if not, 2 on errors.

    Without rules, all values are read and notes about deployment are printed.
    """
    from sparsity_report.findings.model_check import check_rules
    from sparsity_report.findings.wanted_bounds import Rules, read_rule_file, read_rules

    wanted = read_rules({rule.name: getattr(options, rule.name) for rule in fields(Rules)})
    if options.rules is None:
        if model is None:
            raise SparsityReportError("check: no model; give MODEL, or --rules with a file")
        checked = [check_rules(model, wanted, **options.opening)]
    elif model is not None or wanted != Rules() or any(options.opening.values()):
        raise SparsityReportError(
            f"{options.rules} names models and their rules; give no MODEL and no other rules"
        )
    else:
        rules = read_rule_file(options.rules)
        checked = [check_rules(each, given) for each, given in rules.items()]
    if options.json:
        values = [each.to_json() for each in checked]
        print_line(json.dumps(values[0] if options.rules is None else values))
    else:
        for sentence in (line for each in checked for line in each.sentences()):
            print_line(sentence)
    raise typer.Exit(0 if all(checked) else 1)
