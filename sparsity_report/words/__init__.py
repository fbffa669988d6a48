"""Words: sentences, names and numbers as text; every wing above may say something.

- ``catalogue``: the texts by key, from ``sentences.json``
- ``number_format``: one format for each kind of number
- ``display_names``: names of groups, methods, layouts, columns and other raw values
- ``value_formats``: formats of the values of columns
- ``sentences``: texts with their values put in, by the formats of their placeholders
"""
