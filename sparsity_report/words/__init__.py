"""How things are said: each number, name and sentence in one way, in the language spoken.

Rooms, each importing only those before it:

- ``language``: which language is spoken, and its catalogue in ``templates/languages``.
- ``numbers``: every kind of number; thin spaces in cells, the language's space in sentences.
- ``sentences``: ``say``, ``message``, enumerations.
- ``names``: groups, policies and layouts as people read them; long names shortened.
- ``shown``: values that show themselves in a notebook, by a late look at ``report``.

Nothing but the standard library and ``errors`` and ``files`` below. English sentences stand in the
code and are the keys of translations; a test fails on one that is not translated or never said.
"""
