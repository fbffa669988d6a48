"""Sections of a report on a study: the hero, the answer's details, and an appendix."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

import sparsity_report
from sparsity_report.draw import charts
from sparsity_report.draw.measured_charts import CHARTS, quality_axis, quality_chart
from sparsity_report.files.package_data import shipped
from sparsity_report.findings.audit import audit
from sparsity_report.findings.checkpoint_findings import is_identical
from sparsity_report.findings.first_screen import first_screen, model_names
from sparsity_report.findings.study_findings import conventions, topics
from sparsity_report.report import checkpoint_sections, sections, study_maps
from sparsity_report.report.checkpoint_sections import width_of
from sparsity_report.report.sections import Block, Bullets, Chart, Drawing, Medium, Section, Text
from sparsity_report.report.tables import method_tables, speed_tables, study_tables, task_tables
from sparsity_report.report.tables.latex import tex
from sparsity_report.report.tables.table_model import Table, plain_rows
from sparsity_report.study.derived.heads_experts import OVERLAPS
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.frames import EDITED_STUDY, note_findings
from sparsity_report.untrusted.display_text import clip, short_name
from sparsity_report.viewer.study_payload import study_payload
from sparsity_report.words.sentences import say

# Media with an appendix.
_WITH_APPENDIX = ("page", "markdown")
# Most scores in a thesis.
_SCORES = 40
# Sections that two checkpoints do not have.
_OF_PRUNINGS = ("storage", "runtimes", "inside", "model")
# Levels, or scores, from which perplexity has a curve.
_LEVELS = 3

_Measured = Sequence[Callable[[StudyFigures], Table | None]]
# Sentences by section.
_Sentences = Mapping[str, Sequence[str]]
_QUALITY: _Measured = (
    study_tables.sensitivity,
    study_tables.continuations,
    task_tables.zero_shot,
    task_tables.tasks,
    task_tables.task_pairs,
    task_tables.task_sources,
)
_TIMES: _Measured = (speed_tables.latency, speed_tables.crossover)
# Columns of scores on several texts in a thesis.
_QUALITIES = ("sparsity", "perplexity", "protocol", "text", "scored")


def study_document(study: StudyFigures, medium: Medium) -> dict[str, Any]:
    """Return the values that the templates of a study show."""
    models = model_names(study)
    names = ", ".join(map(short_name, study.variants["variant"]))
    title = models if study.matches is not None and study.history is None else f"{models}: {names}"
    sections = study_sections(study, medium)
    return {
        "program": f"sparsity-report {sparsity_report.__version__}",
        "models": models,
        "title": title,
        **first_screen(study),
        "hero": _hero(study, medium),
        "sections": sections,
        # The first of each key.
        "tables": {t.key: t for section in sections[::-1] for t in section.tables[::-1]},
        "totals": plain_rows(study.totals),
    }


def _hero(study: StudyFigures, medium: Medium) -> Section | None:
    """Return quality against sparsity of several prunings, else the viewer and the first map.

    Of two checkpoints it is the fate of the base by block.
    """
    if study.matches is not None:
        return checkpoint_sections.hero(study, width_of(medium))
    texts = tuple(map(Text, topics(study)["rivals"]))
    if medium == "markdown":
        return Section("hero", "", texts) if texts else None
    scores = _scores(study, medium)
    chart = scores or study_maps.first_map(study)
    if medium == "page" and not scores:
        return Section("hero", "", (*texts, sections.Viewer(study_payload(study), chart)))
    return Section("hero", "", (chart, *texts)) if chart else None


def _scores(study: StudyFigures, medium: Medium) -> Chart | None:
    """Return the perplexities of several prunings as a chart; None if fewer than two are known."""
    names = study.facts.contenders or study.facts.lacking
    if sum(study.facts.scored(name) is not None for name in names) < 2:
        return None
    chart = quality_chart(study, width_of(medium))
    return sections.chart_of(chart, None, "hero", say(f"caption.hero.{quality_axis(study)}"))


def study_sections(study: StudyFigures, medium: Medium) -> list[Section]:
    """Return the sections of a report on a study, those of the appendix last."""
    given = study, medium, topics(study)

    def titled(
        parts: Mapping[str, Iterable[Block | None]], is_appendix: bool = False
    ) -> Iterator[Section]:
        """Yield the sections that have content."""
        for key, blocks in parts.items():
            if study.matches is not None and key in _OF_PRUNINGS:
                continue
            if present := tuple(block for block in blocks if block is not None):
                title = "training" if key == "survival" and study.history is not None else key
                yield Section(key, say(f"section.{title}"), present, is_appendix)

    runtimes = {"runtimes": _runtimes(study, medium)}
    parts = {
        "survival": checkpoint_sections.survival(*given),
        "results": _results(*given),
        "where": _where(*given),
        "removed": checkpoint_sections.removed(*given),
        "changes": checkpoint_sections.sizes(study),
        "experts": _experts(*given),
        "storage": _storage(*given),
        "speed": _speed(*given),
        "quality": _quality(*given),
        **({} if medium in _WITH_APPENDIX else runtimes),
        "checkpoints": checkpoint_sections.models(*given),
        "method": _method(*given),
    }
    main = [*titled(parts)]
    if medium not in _WITH_APPENDIX:
        return main
    appendix = {
        "inside": study_maps.heads_and_experts(study) if medium == "page" else (),
        **runtimes,
        "timings": _measured(study, medium, _TIMES),
        "pairs": _measured(study, medium, (task_tables.score_pairs,)),
        "totals": [study_tables.totals(study), study_tables.groups(study)],
        "model": _model(study),
    }
    return [*main, *titled(appendix, is_appendix=True)]


def _results(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block | None]:
    yield from map(Text, note_findings(study.notes, {EDITED_STUDY}))
    yield method_tables.results(study) if study.matches is None else None
    if medium == "kit":
        caption = say("thesis.totals_caption", models=model_names(study))
        yield study_tables.totals_by_variant(study, caption)
    else:
        yield from map(Text, sentences["results"])


def _where(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block | None]:
    if medium == "kit":
        yield from () if study.matches is not None else study_maps.kit_figures(study)
        return
    texts = tuple(sentences["where"])
    yield from [Bullets(texts)] if texts and medium == "page" else map(Text, texts)
    if study.matches is not None:
        if medium == "page" and not is_identical(study):
            yield sections.Viewer(study_payload(study), None)
    elif medium == "paper" and len(study.facts.contenders) > 1:
        yield from study_maps.small_maps(study)
    elif medium == "page" and _scores(study, medium):
        yield sections.Viewer(study_payload(study), study_maps.first_map(study))
    elif medium == "markdown" and len(study.facts.contenders) < 2:
        yield study_maps.first_map(study)


def _experts(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block | None]:
    """Yield findings about experts, and maps of their use."""
    if sentences["experts"] and medium != "kit":
        yield Bullets(tuple(sentences["experts"]))
    yield from study_maps.use_of_experts(study, medium)


def _storage(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block | None]:
    """Yield bytes against sparsity, and those of the headline's pruning in every layout."""
    variant = study.facts.pruning
    if medium == "kit":
        yield Drawing("csr_bytes", "Bytes", partial(charts.csr_bytes_curve, study))
        yield study_tables.storage(study, variant) if variant else None
        return
    yield from (Text(" ".join(sentences[key])) for key in ("storage", "flops") if sentences[key])
    if study.storage.empty:
        yield Text(say("page.storage_empty"))
        return
    if (curve := charts.csr_bytes_curve(study, width_of(medium))) is not None:
        yield sections.chart_of(curve, None, "curve", say("caption.layout_bytes"))
    yield study_tables.storage(study, variant or study.facts.headline)


def _speed(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block | None]:
    if medium == "kit":
        yield from _kit_figures(study, "speed")
        yield speed_tables.crossover(study)
        return
    yield Text(" ".join(sentences["speed"])) if sentences["speed"] else None
    if medium == "paper":
        yield sections.chart_of(CHARTS["speed"](study), speed_tables.latency(study))
        yield speed_tables.crossover(study)


def _quality(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block | None]:
    if medium == "kit":
        # Two scores are numbers of the table, not a curve.
        has_curve = study.quality is not None and study.quality["perplexity"].nunique() >= _LEVELS
        yield from _kit_figures(study, *["quality"] * has_curve, "sensitivity")
        yield study_tables.continuations(study)
        yield task_tables.zero_shot(study)
        for make in (task_tables.score_pairs, task_tables.tasks, task_tables.task_pairs):
            table = make(study)
            yield table if table and len(table.rows) <= _SCORES else None
        if study_tables.passage(study) is None and (every := study_tables.quality(study)):
            yield every.only(*_QUALITIES)
        return
    yield from map(Text, sentences["quality"])
    levels = 0 if study.quality is None else study.quality["sparsity"].nunique()
    if levels >= _LEVELS and len(study.facts.contenders) < 2:
        yield from _measured(study, medium, (study_tables.quality,))
    elif study_tables.passage(study) is None:
        yield study_tables.quality(study)
    yield from _measured(study, medium, _QUALITY)


def _measured(study: StudyFigures, medium: Medium, tables: _Measured) -> Iterator[Block | None]:
    """Yield the chart of each table; one that has none is shown itself."""
    for make in tables:
        if (table := make(study)) is not None:
            draw = CHARTS.get(table.key)
            chart = sections.chart_of(draw(study, width_of(medium)), table) if draw else None
            yield chart or table


def _kit_figures(study: StudyFigures, *names: str) -> Iterator[Drawing]:
    for name in names:
        yield Drawing(name, name.capitalize(), partial(CHARTS[name], study))


def _method(study: StudyFigures, medium: Medium, sentences: _Sentences) -> Iterator[Block]:
    """Yield texts, protocol, denominators, caveats and the provenance, each once."""
    if medium == "kit":
        return
    if passage := study_tables.passage(study):
        yield Text(say("page.scores_on", passage=passage))
    elsewhere = note_findings(study.notes, OVERLAPS)
    notes = [say("format.note_sentence", note=note) for note in study.notes]
    notes = [note for note in notes if note not in elsewhere]
    yield Bullets((*notes, *sentences["method"], *conventions(study), *audit(study)))
    yield sections.Partial("provenance", {"texts": _origin(study), "bibtex": bibtex(study)})


def _origin(study: StudyFigures) -> list[str]:
    """Return command, date, versions, platform, fingerprints and seeds, which a file may state."""
    origin, seeds, facts = study.provenance or {}, study.identity["seeds"], say("cite.unknown")
    if origin:
        versions = [clip(f"{name} {text}") for name, text in origin["versions"].items() if text]
        platform = clip(origin["platform"])
        facts = say("cite.made", date=origin["date"], versions=versions, platform=platform)
    command = clip(origin.get("command") or "", 400)
    return [
        *([say("cite.command", command=command)] if command else []),
        facts,
        say("cite.fingerprints", study=study.fingerprint, weights=clip(weights(study), 200)),
        *([say("cite.seeds", seeds=seeds)] if seeds else []),
    ]


def _runtimes(study: StudyFigures, medium: Medium) -> Iterator[Block]:
    """Yield the support of the variants' layouts by runtimes, with sources and a date."""
    # Tables in LaTeX have no notes, which hold conditions.
    if medium != "kit" and (table := speed_tables.runtimes(study)):
        yield Text(say("page.runtimes_note"))
        yield table


def _model(study: StudyFigures) -> Iterator[Block]:
    yield study_tables.models(study)
    yield study_tables.variants(study)
    yield Text(say("page.fingerprint_note"))


def bibtex(study: StudyFigures) -> list[str]:
    """Return the lines of an entry for a study with its fingerprints."""
    note = say("cite.fingerprints", study=study.fingerprint, weights=weights(study))
    software = _software()
    released = software.get("date-released")
    title = re.sub(r"\b([A-Z]\w*)", r"{\1}", software["title"])
    return [
        "@misc{sparsity-report,",
        f"  author       = {{{{{software['authors'][0]['name']}}}}},",
        f"  title        = {{{title}}},",
        f"  howpublished = {{Python package, version {sparsity_report.__version__}}},",
        *([f"  year         = {{{released.year}}},"] if released else []),
        f"  note         = {{{tex(note)}}}",
        "}",
    ]


@cache
def _software() -> dict[str, Any]:
    """Return the fields of CITATION.cff."""
    path = next(filter(Path.is_file, shipped("CITATION.cff")))
    fields: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return fields


def weights(study: StudyFigures) -> str:
    """Return the fingerprints of the weights of a study."""
    return ", ".join(study.identity["weights"])
