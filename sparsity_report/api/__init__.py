"""Public values and functions that need several wings.

- `study`: the class ``Study``, ``compare``, ``read_study`` and ``summarize``
"""

from importlib import import_module

from sparsity_report.hooks import hooks

hooks.describe = lambda value: import_module("sparsity_report.report.value_display").describe(value)
hooks.mime_bundle = lambda value: import_module("sparsity_report.report.value_display").bundle(
    value
)
hooks.sentences = lambda value: import_module("sparsity_report.api.study").summarize(value)
hooks.chart = lambda *parts: import_module("sparsity_report.draw.heat_maps").metric_map(*parts)
hooks.content = lambda value: import_module("sparsity_report.study.files.json_files").content_of(
    value, hooks.sentences(value)
)
hooks.save = lambda value, path: import_module("sparsity_report.files.atomic").write_file(
    path, import_module("json").dumps(hooks.content(value), ensure_ascii=False)
)
