"""How things are said: each number, name and sentence in one way, in the language spoken.

Rooms, each importing only those before it:

- ``languages``: which language is spoken, and its catalogue in ``templates/languages``.
- ``number_format``: every kind of number; thin spaces in cells, the language's space in sentences.
- ``sentences``: ``say``, ``message``, enumerations.
- ``display_names``: groups, policies and layouts as people read them.
- ``notebook_display``: values that show themselves in a notebook, by a late look at ``report``.

Nothing but the standard library and ``errors`` and ``files`` below. English sentences stand in the
code and are the keys of translations; a test fails on one that is not translated or never said.
"""
