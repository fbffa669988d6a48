"""PEFT adapters.

- `adapter_files`: recognition of adapters among files
- `lora`: the low-rank pairs of a LoRA adapter
- `merged_adapter`: a base model with its adapter
"""
