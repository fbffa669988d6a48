"""NumPy dtypes, and conversions from and to tensors, against torch."""

import numpy as np
import pytest
import torch

from sparsity_report.weights.array_dtypes import array_dtype, cast, dtype_name
from sparsity_report.weights.tensor_slices import DTYPES, is_float, join_slices
from sparsity_report.weights.torch_tensors import tensor_slices, to_array, to_tensor, torch_dtype


@pytest.mark.parametrize("name", DTYPES.values())
def test_tensors_and_arrays_share_memory_in_every_dtype(name):
    for shape in ((2, 3), ()):
        tensor = torch.ones(shape).to(torch_dtype(name))
        array = to_array(tensor)
        assert (dtype_name(array.dtype), array.shape) == (name, shape)
        assert array.dtype == array_dtype(name)
        again = to_tensor(array)
        assert (again.dtype, again.shape) == (tensor.dtype, tensor.shape)
        assert again.data_ptr() == tensor.data_ptr()
    turned = torch.arange(6).reshape(2, 3).to(torch_dtype(name)).T
    joined = join_slices(tensor_slices(turned), name, (3, 2))
    assert np.array_equal(joined, to_array(turned))


@pytest.mark.parametrize("name", [*filter(is_float, DTYPES.values())])
@pytest.mark.parametrize("source", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_are_rounded_as_torch_rounds_them(name, source):
    """Each float16, which are ties of narrower dtypes too, their neighbours and huge numbers."""
    every = torch.arange(2**16).to(torch.uint16).view(torch.float16).double()
    beyond = torch.tensor([1e9, 448.0, 464.0, 465.0, 480.0, 57344.0, 61440.0, 65504.0, 1e39])
    values = torch.cat([every, every * (1 + 2**-30), every * (1 + 2**-12), beyond, -beyond])
    values = values.to(source)
    expected = values.to(torch_dtype(name)).double().numpy()
    assert np.array_equal(cast(to_array(values), name).astype(float), expected, equal_nan=True)
