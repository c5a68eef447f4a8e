# Generated from _face/client.py
# by `python scripts/generate_sync.py`: do not edit.
"""The synchronous client."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

import numpy.typing as npt

from gradwire._face.client import specs_at
from gradwire._face.options import (
    GradientOptions,
    HessianOptions,
    JacobianOptions,
    ProductOptions,
    ProgressOption,
    Rounding,
)
from gradwire._face.verification import Verify
from gradwire._sync.bases import ClientBase
from gradwire._sync.function import Function
from gradwire.frontends.sources import Source
from gradwire.transport.server_info import ServerInfo
from gradwire.transport.uploads import Referred, Uploaded


class Client(ClientBase):
    """A client of one server; made by `connect` or `local`. May be used from several threads."""

    @property
    def address(self) -> str:
        """The server's address."""
        return self._client.address

    def close(self) -> None:
        """Cancel running calls and close the connection."""
        self._bridge.finish(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the server's workers serve.

        A server answers while they are still starting: small work at once, large work slowly. Wait for them
        before large work or measurements. Raise `DeadlineError` after `timeout` seconds.
        """
        self._bridge.run(self._client.wait_ready(timeout))

    def server_info(self, timeout: float | None = 30.0) -> ServerInfo:
        """Return the server's versions, limits and workers.

        Raise `ServerError` with the code UNIMPLEMENTED for a server older than this question.
        """
        return self._bridge.run(self._client.server_info(timeout))

    def function(
        self,
        source: Source,
        *specs: Any,
        names: Sequence[str] | None = None,
        fixed: Mapping[str, npt.ArrayLike] | None = None,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        rounding: Rounding | None = None,
        verify: Verify | None = None,
    ) -> Function:
        """Make a function of NumPy code, an ONNX model or a framework's object.

            f = client.function(lambda w, x: np.tanh(w @ x), gw.spec((4, 3)), gw.spec(3))
            g = client.function("model.onnx")

        Nothing is sent before the function is used. Arrays that a function closes over are taken as they are
        now: later changes to them do not count. Those of 1 MiB or more are copied for that, and uploaded once
        to a server that does not hold them.

        Args:
            source: a Python function, an ONNX model (object, bytes, path or text), or an object of PyTorch,
                JAX or scikit-learn; the id of a graph that the server holds, as `registered` takes it.
            *specs: shapes and dtypes of a Python function's arguments: `gw.spec((2, 3))`, arrays, or dicts,
                tuples, lists, named tuples and dataclasses of them, nested as the arguments are.
            names: names of the inputs; those of the function's parameters by default.
            verify: when the graph of a Python function is compared with the function itself: "first", where
                it is first used at a point, "always" or "never"; what `connect` was given by default. A
                difference raises `TraceMismatchError` from the call that uses the function.
            fixed: values of a model's inputs that become constants, which may decide shapes and branches:
                `fixed={"sr": 16000}`.
            inputs: a model's values to be the inputs: its own, weights (initializers) and inner values; all
                that the outputs need.
            outputs: a model's values to be the outputs: its own and inner values.
            rounding: "straight_through" gives Round, Floor, Ceil and pairs of QuantizeLinear and
                DequantizeLinear the derivative of the identity; their own derivative is zero.

        Raises:
            TraceError: the function cannot be traced.
            InvalidArgumentError: the source is no model, or the specs do not fit it.
            OSError: the file cannot be read.
        """
        return Function(
            self._client.function(
                source,
                *specs,
                names=names,
                fixed=fixed,
                inputs=inputs,
                outputs=outputs,
                rounding=rounding,
                verify=verify,
            ),
            self._bridge,
        )

    def resume(
        self, path: str | os.PathLike[str], *, progress: ProgressOption = False, timeout: float | None = None
    ) -> Any:
        """Finish a derivative that was going to a file, `out="J.npy"`, when its process ended.

        What is needed lies beside the file, in `J.npy.gradwire`: only the blocks that are missing are
        computed, on this client's server, and the bits are the same.

        Args:
            path: the file; of several, the first.
            progress: a bar, or a function of `Progress`, called in the SDK's own thread.
            timeout: seconds until the work is stopped with `DeadlineError`.

        Returns:
            The array in the file, or tuples of arrays, nested as `out` was.

        Raises:
            InvalidArgumentError: nothing is unfinished there.
        """
        return self._bridge.run(self._client.resume(path, progress=progress, timeout=timeout))

    def put(
        self, array: npt.ArrayLike, dtype: npt.DTypeLike | None = None, *, timeout: float | None = None
    ) -> Uploaded:
        """Upload an array once, to refer to it many times, such as a batch that is accumulated repeatedly.

        The server keeps it until it needs the memory for others. Raise `LimitError` if it is too large.
        """
        return self._bridge.run(self._client.put(array, dtype, timeout=timeout))

    def forget(self, what: Referred | Uploaded, *, timeout: float | None = None) -> bool:
        """Delete a function's graph, with the large arrays that it closes over, or an array from the server.

        The server has no copy of it on disk any more, and answers no call that refers to it. Workers may keep
        it in memory until they need that for others. What is used again after this is sent again.

        Args:
            what: a function of this client, or what `put` returned.
            timeout: seconds that it may take.

        Returns:
            Whether the server held it.
        """
        return self._bridge.run(self._client.forget(what, timeout=timeout))

    def jacobian(self, fn: Source, *args: Any, **options: Unpack[JacobianOptions]) -> Any:
        """Compute the Jacobian of `fn` at `args`; options as for `Function.jacobian`.

        For example:

            client.jacobian(lambda x: np.log(x), np.array([1.0, 2.0]))
        """
        return self.function(fn, *specs_at(fn, args)).jacobian(*args, **options)

    def hessian(self, fn: Source, *args: Any, **options: Unpack[HessianOptions]) -> Any:
        """Compute the Hessian of `fn` at `args`; options as for `Function.hessian`."""
        return self.function(fn, *specs_at(fn, args)).hessian(*args, **options)

    def grad(self, fn: Source, *args: Any, **options: Unpack[GradientOptions]) -> Any:
        """Compute the gradient of `fn` at `args`; options as for `Function.grad`."""
        return self.function(fn, *specs_at(fn, args)).grad(*args, **options)

    def jvp(self, fn: Source, *args: Any, **options: Unpack[ProductOptions]) -> Any:
        """Multiply the Jacobian of `fn` at `args[:-1]` by the tangent `args[-1]`."""
        return self.function(fn, *specs_at(fn, args[:-1])).jvp(*args, **options)

    def vjp(self, fn: Source, *args: Any, **options: Unpack[ProductOptions]) -> Any:
        """Multiply the cotangent `args[-1]` by the Jacobian of `fn` at `args[:-1]`."""
        return self.function(fn, *specs_at(fn, args[:-1])).vjp(*args, **options)

    def hvp(self, fn: Source, *args: Any, **options: Unpack[GradientOptions]) -> Any:
        """Multiply the Hessian of `fn` at `args[:-1]` by the tangent `args[-1]`."""
        return self.function(fn, *specs_at(fn, args[:-1])).hvp(*args, **options)
