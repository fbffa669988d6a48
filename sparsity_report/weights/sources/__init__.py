"""Sources of weights: directories, single files, the Hub, and models in memory.

Modules: `checkpoint`, `data_files`, `http_ranges`, `hub`, `memory`, `npz`, `pickles`,
`safetensors`, `structure`, `tokenizer`.
"""
