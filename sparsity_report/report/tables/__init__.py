"""Tables declared once, and their renderings as HTML, LaTeX and text.

Modules: `checkpoint_tables`, `html`, `latex`, `method_tables`, `plain_text`, `speed_tables`,
`study_tables`, `table_model`, `task_tables`.
"""
