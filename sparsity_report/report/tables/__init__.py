"""Tables declared once, and their renderings as HTML, Typst, LaTeX, Markdown and text.

Modules: `column_heads`, `expert_tables`, `latex`, `markdown`, `method_tables`,
`checkpoint_tables`, `plain_text`, `runtime_tables`, `speed_tables`, `study_tables`, `table_model`,
`task_tables`.
"""
