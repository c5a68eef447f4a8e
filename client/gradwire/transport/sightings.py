"""Tells arrays that are new from those that may have been sent before."""

import hashlib

import numpy as np
from cachetools import LRUCache

import gradwire_wire as wire

# Arrays of up to this size are remembered; larger ones never travel within a request.
MOST_BYTES = 2 << 20

_SIGHTINGS = 1024
_SAMPLES = 2048


class Sightings:
    """The arrays that were sent over a connection, each known by a sample of its bytes."""

    def __init__(self) -> None:
        self._seen: LRUCache[bytes, bool] = LRUCache(_SIGHTINGS)

    def first(self, array: wire.Array) -> bool:
        """Tell whether nothing like this array was seen before, and remember it.

        False for a large array; and of two arrays that differ only where no sample is taken, for the second.
        """
        if array.nbytes > MOST_BYTES:
            return False
        elements = np.frombuffer(wire.byte_view(array), np.uint8)
        # Odd, so that samples are not the same byte of every element, which may be zero in all.
        step = len(elements) // _SAMPLES | 1
        digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
        digest.update(elements[::step].tobytes())
        key = digest.digest()
        seen = key in self._seen
        self._seen[key] = True
        return not seen
