"""Files and folders written whole or not at all, and data of the package.

- `package_data`: paths of templates, notebooks and the demo model.
- `filesystem`: fsynced files and folders, digests, one-line errors, and temporary folders.
- `atomic`: ``write_file``, folders of large files that appear when complete, a check of a folder.
- `manifest`: the list of the files of a run, and removal of those of another study.

Maintainers: every call that changes a file goes through ``os``, so that the fault injector of the
tests can let each of them fail.
"""
