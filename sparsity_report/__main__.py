"""``python -m sparsity_report``."""

from sparsity_report.cli import main

main()
