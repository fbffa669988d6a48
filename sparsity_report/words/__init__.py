"""Words: phrases, names and numbers as text in the language in use.

- ``languages``: the language in use, and its catalogue in ``templates/languages``
- ``number_format``: one format for each kind of number
- ``strip_text``: the figures at the head of a report
- ``display_names``: names of groups, methods, layouts, columns and other raw values
- ``pair_labels``: names of a pair and of its strips of removed units
- ``score_text``: names and texts of measured scores
- ``strip_text``: texts of the figures at the head of a report
- ``sentences``: text of phrases, from catalogue templates and the formats of their placeholders

A renderer turns a phrase into text last, so that language is a property of rendering.
"""
