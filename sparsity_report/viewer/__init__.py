"""The interactive view of a study or a pair: one ES module, its payload and its widget.

``payload`` packs a header and arrays into bytes, ``study_payload`` collects those of a study.
``copied_code`` is a study as code.
"""
