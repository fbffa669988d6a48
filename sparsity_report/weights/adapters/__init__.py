"""PEFT adapters.

- `adapter_settings`: the modules that an adapter changes, with their ranks and scalings
- `lora`: recognition of adapters among files, and the low-rank pairs of LoRA
- `merged_adapter`: a base model with its adapter
"""
