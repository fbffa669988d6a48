"""Findings about published perplexities: dense first, then each row that can be compared."""

from sparsity_report.study.layers import records
from sparsity_report.study.published_scores import Reproduction
from sparsity_report.words.sentences import say

_DENSE = {
    "yes": "reproduction.dense_yes",
    "no": "reproduction.dense_no",
    "not measured": "reproduction.dense_missing",
}
_PRUNED = {"yes": "reproduction.yes", "no": "reproduction.no"}


def reproduction_findings(reproduction: Reproduction) -> list[str]:
    """Return the findings about a reproduction, dense first."""
    table, rows = reproduction.table, records(reproduction.rows)
    about = {"model": reproduction.model, "paper": table.paper, "protocol": table.protocol}
    written = [
        {**row, **about, "digits": f",.{score.decimals}f"}
        for row, score in zip(rows, table.rows, strict=True)
    ]
    findings = [say(_DENSE[rows[0]["verdict"]], **written[0])]
    findings += [say(_PRUNED[r["verdict"]], **r) for r in written[1:] if r["verdict"] in _PRUNED]
    if missing := [row["method"] for row in rows[1:] if row["verdict"] == "not measured"]:
        findings.append(say("reproduction.not_measured", methods=missing))
    if texts := [*reproduction.rows["calibration"].dropna().unique()]:
        findings.append(say("reproduction.calibration", texts=texts, paper=table.paper))
    where = {"arxiv": table.arxiv, "source": table.source, "looked_at": table.looked_at}
    return [*findings, say("reproduction.source", paper=table.paper, **where)]
