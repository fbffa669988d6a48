"""Files and folders written whole or not at all, and data of the package.

- `package_data`: paths of templates, notebooks and the demo model.
- `filesystem`: locks, fsynced files and folders, digests, one-line errors, and temporary folders.
- `atomic`: ``write_file``, and a check of the folder.
- `manifest`: the list of the files of a run, and removal of those of another study.
- `new_folder`: a folder of large files that appears when it is complete.

Maintainers: every call that changes a file goes through ``os``, so that the fault injector of the
tests can let each of them fail.
"""
