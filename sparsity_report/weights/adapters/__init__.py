"""PEFT adapters.

- `lora`: recognition of adapters among files, and the low-rank pairs of LoRA
- `merged_adapter`: a base model with its adapter
"""
