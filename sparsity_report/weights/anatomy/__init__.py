"""Structure of a model: groups, parameters, and a run on the meta device that traces their use.

Modules: `config_sizes`, `converted_values`, `decided_files`, `describe`, `groups`, `meta_model`,
`names_only`, `parameter_places`, `parameter_uses`, `tensor_names`.
"""
