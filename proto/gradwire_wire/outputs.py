"""Named outputs on the wire: small ones are inside their message, large ones follow it in chunks."""

from collections.abc import Sequence

import numpy as np

from gradwire_wire.framing import Chunk
from gradwire_wire.tensors import Array, WireError, data_type, from_tensor, numpy_dtype, wire_array
from gradwire_wire.v1 import accumulate_pb2, function_pb2, tensor_pb2

#: Outputs of up to this size in total are sent inside the message that lists them.
INLINE_BYTES = 1 << 20

Response = function_pb2.EvaluateResponse | accumulate_pb2.Gradient


def add_outputs(
    response: Response, names: Sequence[str], arrays: Sequence[Array], *, whole: bool
) -> list[int]:
    """Add outputs to a response; the content of large ones is left out unless `whole` is set.

    Args:
        response: the message to add to.
        names: name of each output.
        arrays: array of each output, of any dtype that the wire has.
        whole: whether all content is put into the message, whatever its size.

    Returns:
        The positions of outputs without content: their elements follow in chunks.

    Raises:
        WireError: the wire has no element type for a dtype.
    """
    fits = whole or sum(array.nbytes for array in arrays) <= INLINE_BYTES
    limit = 0 if fits else INLINE_BYTES // len(arrays)
    chunked = []
    for index, (name, array) in enumerate(zip(names, arrays, strict=True)):
        item = response.outputs.add()
        item.name = name
        item.tensor.dtype = data_type(array.dtype)
        item.tensor.shape.extend(array.shape)
        if fits or array.nbytes <= limit:
            item.tensor.data = wire_array(array).tobytes()
        else:
            chunked.append(index)
    return chunked


def output_arrays(response: Response) -> list[Array]:
    """Return the outputs in a response, writable; those without content are uninitialized, for chunks."""
    return [_output(named.tensor) for named in response.outputs]


def _output(tensor: tensor_pb2.Tensor) -> Array:
    if tensor.WhichOneof("content") is None:
        return np.empty(tuple(tensor.shape), numpy_dtype(tensor.dtype))
    return from_tensor(tensor).copy()


def fill_output(arrays: Sequence[Array], chunk: Chunk) -> None:
    """Copy a chunk into its output.

    Raises:
        WireError: there is no such output, or the chunk exceeds it.
    """
    output, offset, _ = chunk.numbers
    if output >= len(arrays) or offset + len(chunk.data) > arrays[output].nbytes:
        raise WireError(f"{len(chunk.data)} bytes at {offset} of output {output}, which has not so many")
    target = arrays[output].reshape(-1).view(np.uint8)
    target[offset : offset + len(chunk.data)] = np.frombuffer(chunk.data, np.uint8)
