"""Arrays that were uploaded to a server, to be referred to any number of times."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

import gradwire_wire as wire


class Referred(Protocol):
    """A function, as far as a server holds anything of it: its graph and the large arrays it closes over."""

    @property
    def graph_id(self) -> str:
        """The id of the graph."""

    @property
    def constants(self) -> Mapping[str, wire.Array]:
        """The arrays."""


@dataclass(frozen=True, slots=True, eq=False)
class Uploaded:
    """An array that was sent once; made by `Client.put`, and taken wherever an array is.

    It keeps the array, to send it again if the server has lost it: do not write to it. An array that is
    mapped from a file (`np.memmap`) takes no memory.
    """

    tensor_id: str
    array: wire.Array

    @property
    def dtype(self) -> np.dtype[Any]:
        """The elements' type."""
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents."""
        return self.array.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> wire.Array:
        return np.array(self.array, dtype, copy=copy) if copy else np.asarray(self.array, dtype)

    def __len__(self) -> int:
        return len(self.array)

    def __repr__(self) -> str:
        return f"<Uploaded {self.tensor_id[:12]} {self.dtype.name}{list(self.shape)}>"
