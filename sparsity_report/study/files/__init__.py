"""Files of studies.

Modules:

- `json_files`: writing and reading studies as JSON, and their content.
- `value_bounds`: checks that refuse impossible numbers.
- `csv_files`: a study as CSV files for a spreadsheet.
"""
