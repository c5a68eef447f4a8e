"""Value and derivative in one trip: the part of `Function` for which a point is sent once."""

from typing import Any

from gradwire._face.evaluation import Arrays
from gradwire._face.function import AsyncFunction, ProgressWish
from gradwire._sync.bridge import Bridge
from gradwire._sync.callbacks import Along, Callbacks
from gradwire.graphs.signature import Selection


class Together:
    """What a function gives beside its value."""

    _function: AsyncFunction
    _bridge: Bridge

    def value_and_jacobian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        out: Any = None,
        progress: ProgressWish = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays]:
        """All outputs and the Jacobian of `of`, from one trip; the arguments are those of `jacobian`.

        scipy.optimize.root(f.value_and_jacobian, x0, jac=True)
        """
        return self._bridge.run(
            self._function.value_and_jacobian(
                *args,
                wrt=wrt,
                of=of,
                mode=mode,
                block_width=block_width,
                block_memory=block_memory,
                out=out,
                progress=progress,
                timeout=timeout,
                **inputs,
            )
        )

    def value_and_hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        out: Any = None,
        progress: ProgressWish = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays]:
        """All outputs and the Hessian of `of`, from one trip; the arguments are those of `hessian`."""
        return self._bridge.run(
            self._function.value_and_hessian(
                *args,
                wrt=wrt,
                of=of,
                mode=mode,
                block_width=block_width,
                block_memory=block_memory,
                out=out,
                progress=progress,
                timeout=timeout,
                **inputs,
            )
        )

    def value_grad_and_hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        block_width: int = 0,
        block_memory: int = 0,
        out: Any = None,
        progress: ProgressWish = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays, Arrays]:
        """All outputs, and the gradient and the Hessian of `of`, from one trip: what a Newton step takes.

        The Hessian is computed as the Jacobian of the gradient; the arguments are those of `hessian`, but
        for `mode`.
        """
        return self._bridge.run(
            self._function.value_grad_and_hessian(
                *args,
                wrt=wrt,
                of=of,
                block_width=block_width,
                block_memory=block_memory,
                out=out,
                progress=progress,
                timeout=timeout,
                **inputs,
            )
        )

    def callbacks(
        self,
        wrt: str | int | None = None,
        of: str | int | None = None,
        *,
        along: Along = "auto",
        timeout: float | None = None,
    ) -> Callbacks:
        """The functions that a numerical solver calls, with what belongs to a point fetched in one trip.

        c = f.callbacks()
        scipy.optimize.minimize(c.value, x0, jac=c.grad, method="BFGS")
        scipy.optimize.least_squares(c.value, x0, jac=c.jacobian)

        Args:
            wrt: the input that the solver varies, by name or position; the first floating-point one by
                default. The others are what solvers call `args`.
            of: the output that the solver asks for; the first floating-point one by default.
            along: what comes with a value: "grad", "jacobian", "hessian" (with the gradient), "nothing",
                or what fits the output ("auto": the gradient of one number, the Jacobian of several).
            timeout: seconds until the work for one point is stopped with `DeadlineError`.
        """
        return Callbacks(self._function, self._bridge, wrt, of, along, timeout)
