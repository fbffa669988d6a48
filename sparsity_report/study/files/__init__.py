"""Files of studies.

Modules:

- `json_files`: writing and reading studies as JSON, and their content.
- `track_files`: logs of zeros over training.
- `study_sources`: a study from a value or a path.
- `value_bounds`: checks that refuse impossible numbers.
- `csv_files`: a study as CSV files for a spreadsheet.
"""
