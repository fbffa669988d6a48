"""PEFT adapters: their files, LoRA products, and adapters merged into a base model.

Modules: `adapter_files`, `lora`, `merged_adapter`.
"""
