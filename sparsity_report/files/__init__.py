"""Files: written in whole sets or not at all, found again after a kill, and what ships.

Rooms, each importing only those before it:

- `package_data`: where templates, notebooks and the demo model lie; `stop_signals`: signals that wait.
- `locks`: whether a run still lives; `durable_writes`: calls of the system on one file, in one line each.
- `manifest`: the list of the files of one run; `journal`: what a run that was killed has left.
- `atomic`: ``together``, ``write_file``, ``write_entry``; `folders`: scratch, and a look before work.

May import ``errors``. Maintainers: every call that changes a file goes through ``os`` here, so that
``tests/faults.py`` can let each of them fail; keep journals readable by the version before.
"""
