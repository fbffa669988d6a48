"""NumPy dtypes by the names that torch gives them, bfloat16 and float8 included."""

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
DType = np.dtype[Any]

# Largest number of a float8 that has no infinity, to which torch rounds larger ones.
_LARGEST = {"float8_e4m3fn": 448.0}


def array_dtype(name: str) -> DType:
    """Return the dtype of a name.

    Examples
    --------
    >>> array_dtype("bfloat16").itemsize, array_dtype("bool")
    (2, dtype('bool'))
    """
    return np.dtype(getattr(ml_dtypes, name, name))


def dtype_name(dtype: DType) -> str:
    """Return the name of a dtype, e.g. ``"bfloat16"``.

    Examples
    --------
    >>> dtype_name(array_dtype("float8_e4m3fn"))
    'float8_e4m3fn'
    """
    return str(dtype.name)


def cast(values: Array, name: str) -> Array:
    """Return values in another dtype, rounded as torch rounds them.

    Examples
    --------
    >>> cast(np.array([1.01, 1e9]), "float8_e4m3fn").astype(float).tolist()
    [1.0, 448.0]
    """
    dtype = array_dtype(name)
    with np.errstate(all="ignore"):
        if dtype.itemsize < 4 and values.dtype != dtype and name.startswith(("float", "bfloat")):
            values = values.astype(np.float32, copy=False)
        if (most := _LARGEST.get(name)) and values.dtype != dtype:
            values = values.clip(-most, most)
        return values.astype(dtype, copy=False)
