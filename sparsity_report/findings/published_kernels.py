"""Published figures of kernels for sparse weights, none of which was measured here.

Each figure quotes its source: the abstract of a paper, or the README of the authors' code. Values
that neither states, such as the crossover sparsity, are null.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """One figure of a kernel.

    Attributes
    ----------
    kernel : str
    layout : str
        As in ``study.storage``; ``"csr"`` for any CSR.
    zeros : str
        Sparsity at which it was measured.
    speedup : str
        Speed-up over `against`.
    against : str
        Key of a name, or the name of a product.
    crossover : float or None
        Sparsity from which it is faster than dense, if the source states it.
    hardware : str
    words : str
        Quotation from the source.
    source : str
    """

    kernel: str
    layout: str
    zeros: str
    speedup: str
    against: str
    crossover: float | None
    hardware: str
    words: str
    source: str


_MACKO = "Macko and Boža 2025, arXiv:2511.13061"
_MACKO_CODE = "github.com/vlejd/macko_spmv, README"
_GEFORCE = "RTX 2080, 3090, 4090"
_SPINFER = "Fan et al. 2025, EuroSys, doi:10.1145/3689031.3717481"
_MARLIN = "Castro and Alistarh 2024, github.com/IST-DASLab/Sparse-Marlin, README"
_DENSE, _DENSE_16 = "layout.dense", "kernel.dense_float16"
_MODEL = "kernel.dense_model_token_by_token"

#: Figures in the order of the table.
PUBLISHED = (
    Published(
        "MACKO", "macko", "50 %", "1.2–1.5", _DENSE_16, None, _GEFORCE,
        "at sparsity 50%, MACKO is the first approach with significant 1.5× memory reduction and "
        "1.2–1.5× speedup over dense representation",
        _MACKO,
    ),
    Published(
        "MACKO", "macko", "90 %", "3.5–4.5", _DENSE_16, None, _GEFORCE,
        "10% matrix density: 6.25x memory reduction, 3.5-4.5x speedup over cuBLAS",
        _MACKO_CODE,
    ),
    Published(
        "MACKO", "macko", "50 %", "1.5", _MODEL, None, "",
        "Applied to Llama2-7B pruned with Wanda to sparsity 50%, it delivers 1.5× memory reduction "
        "and 1.5× faster inference at fp16 precision",
        _MACKO,
    ),
    Published(
        "MACKO", "macko", "50 %", "2.8–13.0", "cuSPARSE (CSR)", None, _GEFORCE,
        "Speedups over other SpMV baselines: 2.8–13.0× over cuSPARSE, 1.9–2.6× over Sputnik, and "
        "2.2–2.5× over DASP",
        _MACKO,
    ),
    Published(
        "SpInfer", "tca_bme", "30–70 %", "", _DENSE, 0.3, "",
        "SpInfer outperforms highly optimized cuBLAS at sparsity levels as low as 30%",
        _SPINFER,
    ),
    Published(
        "SpInfer", "tca_bme", "30–70 %", "≤ 2.14", "Flash-LLM", None, "",
        "up to 2.14× and 2.27× over Flash-LLM and SparTA, respectively",
        _SPINFER,
    ),
    Published(
        "Sparse-Marlin", "marlin_2:4", "50 % (2:4)", "5.3", _DENSE_16, None, "RTX 3090",
        "Sparse-Marlin, which also achieves near-optimal a performance of about 5.3x, is able to "
        "preserve this condition with a batch size twice as large (i.e., 32)",
        _MARLIN,
    ),
    Published(
        "Sputnik", "csr", "", "1.2–2.1", _DENSE, None, "V100",
        "Using our kernels, we demonstrate sparse Transformer and MobileNet models that achieve "
        "1.2-2.1x speedups and up to 12.8x memory savings without sacrificing accuracy",
        "Gale et al. 2020, arXiv:2006.10901",
    ),
)  # fmt: skip
