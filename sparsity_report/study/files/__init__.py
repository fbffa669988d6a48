"""Files of studies and pairs.

Modules:

- `json_files`: writing and reading studies and pairs as JSON, and the content of both.
- `value_bounds`: checks that refuse impossible numbers.
- `csv_files`: a study as CSV files for a spreadsheet.
"""
