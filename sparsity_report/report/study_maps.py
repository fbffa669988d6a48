"""Maps of zeros by block, small ones side by side, of heads and experts, and of router use."""

from collections.abc import Iterator
from functools import partial

from sparsity_report.draw import heat_maps
from sparsity_report.report import sections
from sparsity_report.report.sections import Block, Chart, Medium, Text, chart_of
from sparsity_report.report.tables import study_tables
from sparsity_report.report.tables.latex import variant_commands
from sparsity_report.study.derived.heads_experts import FIGURES, drawn_use
from sparsity_report.study.figures import StudyFigures
from sparsity_report.study.files.csv_files import variant_stems
from sparsity_report.words.sentences import say


def first_map(study: StudyFigures) -> Chart | None:
    """Return the map of the headline's pruning, or else of the first that has one."""
    for variant in sorted(study.facts.prunings, key=lambda name: name != study.facts.pruning):
        if (chart := heat_maps.sparsity_map(study, variant)) is not None:
            table = study_tables.zeros_map(study, variant)
            return chart_of(chart, table, _key(study, variant))
    return None


def kit_figures(study: StudyFigures) -> Iterator[Block]:
    """Yield a map per pruning."""
    commands, stems = variant_commands(study), variant_stems(study)
    for variant in study.facts.prunings:
        draw = partial(heat_maps.sparsity_map, study, variant)
        yield sections.Drawing(f"map_{stems[variant]}", f"Map{commands[variant]}", draw)


def small_maps(study: StudyFigures) -> Iterator[Block | None]:
    """Yield small maps of several prunings; those with equal shares in all cells as a sentence."""
    distinct = dict.fromkeys([*study.facts.contenders, *study.facts.prunings])
    mapped = [variant for variant in distinct if not study.facts.cells(variant).empty]
    if len(mapped) < 2:
        return
    maps: list[Chart] = []
    uniform: dict[str, list[str]] = {}
    for variant in mapped:
        if (share := heat_maps.even(study, variant)) is not None:
            uniform.setdefault(share, []).append(variant)
            continue
        key, table = f"small-{_key(study, variant)}", study_tables.zeros_map(study, variant)
        if chart := chart_of(heat_maps.small_map(study, variant), table, key):
            maps.append(chart)
    if uniform:
        key = "map.uniform_zeros"
        yield Text(" ".join(say(key, variants=uniform[share], share=share) for share in uniform))
    yield sections.multiples(maps, heat_maps.colors(), "map-colors", say("caption.small_maps"))


def use_of_experts(study: StudyFigures, medium: Medium) -> Iterator[Block | None]:
    """Yield maps of the use and the saliency of experts, removed ones crossed out."""
    commands, stems = variant_commands(study), variant_stems(study)
    for place, (variant, rows) in enumerate(drawn_use(study).items()):
        for figure in FIGURES:
            draw = partial(heat_maps.expert_map, rows, figure, variant)
            if medium == "kit":
                command = figure.title().replace("_", "") + commands[variant]
                yield sections.Drawing(f"{figure}_{stems[variant]}", command, draw)
            elif (chart := draw()) is not None:
                table = study_tables.expert_map(rows, figure, variant)
                yield chart_of(chart, table, f"{figure}{place}")
        if len(rows) > heat_maps.MOST_EXPERTS:
            yield Text(say("map.too_many.experts", number=len(rows)))


def heads_and_experts(study: StudyFigures) -> Iterator[Block | None]:
    """Yield maps of the headline's heads and experts, or that they are too many."""
    if (variant := study.facts.pruning) is None:
        return
    maps = []
    for place, part in enumerate(study.facts.parts(variant)):
        table = study_tables.inside(variant, part)
        if chart := chart_of(heat_maps.part_map(part, variant), table, f"{part.key}{place}"):
            maps.append(chart)
        elif heat_maps.is_too_large(part):
            yield Text(say(f"map.too_many.{part.key}", number=len(part.rows)))
    note = say("map.heads_experts_note", variant=variant)
    yield sections.multiples(maps, heat_maps.colors(), "inside-colors", note)


def _key(study: StudyFigures, variant: str) -> str:
    return f"map{list(study.variants['variant']).index(variant)}"
