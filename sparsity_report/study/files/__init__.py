"""Files of studies and pairs.

Modules:

- `json_files`: writing and reading studies and pairs as JSON.
- `file_kinds`: the content of each kind of file.
- `value_bounds`: checks that refuse impossible numbers.
- `json_schema`: the JSON Schema of a saved study.
- `csv_files`: a study as CSV files for a spreadsheet.
"""
