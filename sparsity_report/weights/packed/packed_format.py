"""Interface of a packed format: how it is recognized, declared and decoded."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from sparsity_report.weights.packed.packed_tensor import Packed
from sparsity_report.weights.packed.tensor_groups import Parts


class PackedFormat(ABC):
    """A way to store one weight as several tensors; :data:`.formats.FORMATS` lists all."""

    #: Parts by which it is recognized, the last components of their names.
    needs: ClassVar[tuple[str, ...]]
    #: Further parts, as regular expressions.
    allows: ClassVar[tuple[str, ...]] = ()
    #: Parts that may accompany weights that were calibrated and saved unpacked.
    calibrates: ClassVar[frozenset[str]] = frozenset()
    #: True if part names follow the name of the parameter after an underscore.
    fused: ClassVar[bool] = False
    #: Beginnings of the names of its layouts, see ``Packed.packing``, each with the settings that
    #: declare it: ``quant_method``, ``format``, or a key that is true.
    layouts: ClassVar[Mapping[str, tuple[str, ...]]]
    #: Keys of settings that imply the first of these if ``quant_method`` is missing.
    signs: ClassVar[tuple[str, ...]] = ()
    #: Files of settings beside ``config.json``, each with the key of the settings and the method.
    files: ClassVar[Mapping[str, tuple[str, str]]] = {}

    @property
    def method(self) -> str:
        """Method that its keys imply."""
        return next(iter(self.layouts.values()))[0]

    def fits(self, parts: Parts) -> bool:
        """Return whether tensors are a weight in this format."""
        return parts.keys() >= {*self.needs}

    @abstractmethod
    def decode(self, parts: Parts) -> Packed:
        """Return the decoder of a weight: values, zeros and bytes follow from it.

        Raises
        ------
        SparsityReportError
            Parts are missing or do not fit each other or the configuration.
        """
