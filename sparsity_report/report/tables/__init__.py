"""Tables declared once, and their renderings as HTML, Typst, LaTeX, Markdown and text.

Modules: `expert_tables`, `html`, `latex`, `markdown`, `method_tables`,
`pair_tables`, `plain_text`, `runtime_tables`, `speed_tables`, `study_tables`, `table_model`,
`task_tables`.
"""
