"""Limits, checks and display of JSON, numbers and names from untrusted files.

- `limits`: the largest sizes that are accepted.
- `gates`: readers and checks of JSON, numbers and file names.
- `display_text`: names shortened for display.
"""
