"""Limits, checks and display of JSON, numbers and names from untrusted files.

- `limits`: the largest sizes that are accepted.
- `gates`: readers and checks of JSON, numbers and file names.
- `processor_time`: a budget that interrupts loops of libraries.
- `display_text`: names shortened for display.
"""
