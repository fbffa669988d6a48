"""PEFT adapters.

- `lora`: settings of an adapter for each module, and the low-rank pairs of LoRA
- `merged_adapter`: a base model with its adapter
"""
