"""Names and texts of measured scores."""

from sparsity_report.study.derived.tradeoff import Point, Tradeoff
from sparsity_report.study.derived.zero_shot import METRIC, SEVEN
from sparsity_report.untrusted.display_text import clip
from sparsity_report.words.number_format import perplexity, plus_minus, with_error
from sparsity_report.words.sentences import say


def measure_name(tradeoff: Tradeoff) -> str:
    """Return the name of the measurement."""
    if tradeoff.measure == "perplexity":
        return say("label.perplexity")
    if tradeoff.measure == "mean":
        return say("chart.mean_accuracy_seven_tasks")
    task = SEVEN.get(tradeoff.measure, tradeoff.measure)
    return f"{clip(task, 24)}, {clip(tradeoff.subject, 16)}"


def score_text(tradeoff: Tradeoff, point: Point, vocabulary: int | None = None) -> str:
    """Write a score with its standard error, if that is known."""
    if tradeoff.measure == "perplexity":
        return perplexity((point.value, vocabulary), space="")
    write = with_error if is_accuracy(tradeoff) else plus_minus
    return write(point.value, point.error)


def is_accuracy(tradeoff: Tradeoff) -> bool:
    """Return true if the scores are shares of correct answers."""
    return tradeoff.subject == METRIC and (tradeoff.measure == "mean" or tradeoff.measure in SEVEN)
