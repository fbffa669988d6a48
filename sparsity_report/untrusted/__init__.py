"""Gates and limits for JSON, numbers and names from files that others wrote.

Modules: `gates`, `limits`.
"""
