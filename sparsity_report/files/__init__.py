"""Files written in whole sets or not at all, recovery after a kill, and data of the package.

- `package_data`: paths of templates, notebooks and the demo model.
- `stop_signals`: SIGINT, SIGTERM and SIGHUP, and a context that defers them.
- `filesystem`: locks, fsynced files and folders, digests, one-line errors, and temporary folders.
- `manifest`: the list of the files of a run, for ``sha256sum -c``.
- `journal`: the journal of a set, and recovery from one.
- `atomic`: ``together``, ``write_file``, ``write_entry``, and a check of the folder.
- `new_folder`: a folder of large files that appears when it is complete.

Maintainers: every call that changes a file goes through ``os``, so that the fault injector of the
tests can let each of them fail.
"""
