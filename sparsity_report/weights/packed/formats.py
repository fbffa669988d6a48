"""Packed formats; a weight is decoded by the first that fits its tensors."""

from sparsity_report.weights.packed.bitsandbytes import FourBit, LlmInt8
from sparsity_report.weights.packed.compressed_tensors import PackQuantized, SparseBitmask
from sparsity_report.weights.packed.gptq_awq import GptqAwq
from sparsity_report.weights.packed.mlx import Mlx
from sparsity_report.weights.packed.packed_format import PackedFormat
from sparsity_report.weights.packed.scaled_floats import FusedMxfp4, Scaled, TorchAo

FORMATS: list[PackedFormat] = [
    SparseBitmask(),
    PackQuantized(),
    GptqAwq(),
    FusedMxfp4(),
    FourBit(),
    LlmInt8(),
    Mlx(),
    Scaled(),
    TorchAo(),
]
