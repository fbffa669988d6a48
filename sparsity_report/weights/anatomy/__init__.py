"""Structure of a model: groups, parameters, and a run on the meta device that traces their use.

Modules: `describe`, `groups`, `meta_model`, `meta_run`, `module_uses`,
`parameter_places`, `sample_inputs`, `tensor_names`, `tracer`.
"""
