"""The commands and their options; `session` and `demo` have what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import gradwire as gw
from gradwire_server.cli import cache, session, status, tokens
from gradwire_server.cli.session import Choices, CommonOptions

app = typer.Typer(
    name="gradwire",
    help="Gradients over the wire: Jacobians and Hessians of any ONNX graph.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(tokens.app, name="token")
app.add_typer(cache.app, name="cache")


def _positive(seconds: float | None) -> float | None:
    if seconds is not None and not seconds > 0:
        raise typer.BadParameter(f"{seconds:g} is no positive number of seconds")
    return seconds


Model = Annotated[
    Path, typer.Argument(help="an ONNX model: .onnx, or its text form", exists=True, dir_okay=False)
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input", "-i", metavar="NAME=VALUE", help="x=x.npy, x=data.npz:key, or x=1.5 or x=[1,2,3]"
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", "-a", help="a server, host:port; default: GRADWIRE_ADDRESS, or a new local one"
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="workers of the local server; default: one per core")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="write arrays here: .npz, or .npy for a single one")
]
Wrt = Annotated[
    list[str] | None, typer.Option("--wrt", help="input to differentiate with respect to; may repeat")
]
Of = Annotated[list[str] | None, typer.Option("--of", help="output to differentiate; may repeat")]
Mode = Annotated[str | None, typer.Option(help="forward or reverse; for a Hessian forward_over_reverse, ...")]
Sparse = Annotated[
    bool,
    typer.Option(
        "--sparse", help="only the entries that may be non-zero, as one matrix of all outputs by all inputs"
    ),
]
Timeout = Annotated[float | None, typer.Option(callback=_positive, help="give up after this many seconds")]
Vectors = Annotated[
    list[str] | None,
    typer.Option(
        "--vector", "-v", metavar="NAME=VALUE", help="tangent of an input, or cotangent of an output"
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"gradwire {gw.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="show the version")
    ] = False,
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--plain-text", help="encrypt the connection, or send a token without; default: with --ca"
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(help="root of the server's certificate, in PEM", exists=True, dir_okay=False),
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(help="this client's certificate, in PEM", exists=True, dir_okay=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="the key of --cert, in PEM", exists=True, dir_okay=False)
    ] = None,
) -> None:
    """Gradients over the wire: Jacobians and Hessians of any ONNX graph.

    Where a server asks for a token, set GRADWIRE_TOKEN.
    """
    if (cert is None) != (key is None):
        raise typer.BadParameter("a certificate and its key go together", param_hint="--cert, --key")
    pair = (cert, key) if cert is not None and key is not None else None
    session.PROTECTION.set(session.Protection(tls, ca, pair))


Fixed = Annotated[
    list[str] | None,
    typer.Option(
        "--fix", metavar="NAME=VALUE", help="make an input a constant, such as sr=16000; may repeat"
    ),
]
Rounding = Annotated[
    str | None,
    typer.Option(help="straight_through: Round, Floor, Ceil and quantization have the identity's derivative"),
]

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--inputs",
        metavar="NAME",
        help="an input that the function has: one of the model, a weight or an inner value; may repeat",
    ),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option(
        "--outputs",
        metavar="NAME",
        help="an output that the function has: one of the model or an inner value; may repeat",
    ),
]


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False
)
def serve(context: typer.Context) -> None:
    """Run a server. `gradwire serve --help` lists every setting."""
    with session.errors_in_a_line():
        session.require_server("gradwire serve")
    from gradwire_server.__main__ import main

    raise typer.Exit(main(context.args))


@app.command()
def demo(workers: Annotated[int, typer.Option(min=1, help="workers of the local server")] = 2) -> None:
    """Show the main job: Jacobians and Hessians from a local server, checked before your eyes."""
    with session.errors_in_a_line():
        session.require_server("gradwire demo")
    from gradwire_server.cli.demo import run

    raise typer.Exit(run(workers))


app.command(name="status")(status.show)


@app.command()
def inspect(
    model: Model,
    address: Address = None,
    fix: Fixed = None,
    rounding: Rounding = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
) -> None:
    """Show a model's inputs, outputs, operators and warnings, and whether all of it can be differentiated."""
    choices = Choices(fix, rounding, inputs, outputs)
    session.inspect(CommonOptions(model, None, None, None, None, address, 1, None, choices))


@app.command()
def plan(
    model: Model,
    input: InputOption = None,
    kind: Annotated[str, typer.Option(help="jacobian or hessian")] = "jacobian",
    wrt: Wrt = None,
    of: Of = None,
    mode: Mode = None,
    sparse: Sparse = False,
    address: Address = None,
    workers: Workers = None,
    timeout: Timeout = None,
    fix: Fixed = None,
    rounding: Rounding = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
) -> None:
    """Show how a derivative would be computed: mode, blocks, bytes and memory. Nothing is evaluated.

    Inputs of a fixed shape may be left out. With --sparse, also non-zeros, colors and bytes against dense.
    """
    session.show_plan(
        CommonOptions(
            model,
            input,
            wrt,
            of,
            None,
            address,
            workers,
            timeout,
            Choices(fix, rounding, inputs, outputs),
            sparse,
        ),
        kind,
        mode,
    )


@app.command()
def check(
    model: Model,
    input: InputOption = None,
    address: Address = None,
    workers: Workers = None,
    timeout: Timeout = None,
    fix: Fixed = None,
    rounding: Rounding = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
) -> None:
    """Compare derivatives with differences, with one another in both modes, and a Hessian with its transpose.

    Floating-point inputs of a fixed shape may be left out: they are drawn from a standard normal distribution
    then. Ends with status 1 where two differ by more than rounding.
    """
    choices = Choices(fix, rounding, inputs, outputs)
    session.check(CommonOptions(model, input, None, None, None, address, workers, timeout, choices))


@app.command()
def value(
    model: Model,
    input: InputOption = None,
    output: Output = None,
    address: Address = None,
    workers: Workers = None,
    timeout: Timeout = None,
    fix: Fixed = None,
    rounding: Rounding = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
) -> None:
    """Evaluate a model."""
    session.value(
        CommonOptions(
            model,
            input,
            None,
            None,
            output,
            address,
            workers,
            timeout,
            Choices(fix, rounding, inputs, outputs),
        )
    )


@app.command()
def jacobian(
    model: Model,
    input: InputOption = None,
    wrt: Wrt = None,
    of: Of = None,
    output: Output = None,
    mode: Mode = None,
    sparse: Sparse = False,
    address: Address = None,
    workers: Workers = None,
    timeout: Timeout = None,
    fix: Fixed = None,
    rounding: Rounding = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
) -> None:
    """Compute the Jacobian: shape output.shape + input.shape.

    With --sparse, a matrix that scipy.sparse.load_npz reads from the output file.
    """
    session.derivative(
        CommonOptions(
            model,
            input,
            wrt,
            of,
            output,
            address,
            workers,
            timeout,
            Choices(fix, rounding, inputs, outputs),
            sparse,
        ),
        "jacobian",
        mode,
    )


@app.command()
def hessian(
    model: Model,
    input: InputOption = None,
    wrt: Wrt = None,
    of: Of = None,
    output: Output = None,
    mode: Mode = None,
    sparse: Sparse = False,
    address: Address = None,
    workers: Workers = None,
    timeout: Timeout = None,
    fix: Fixed = None,
    rounding: Rounding = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
) -> None:
    """Compute the Hessian of an output of one element: shape input.shape + input.shape.

    With --sparse, a matrix that scipy.sparse.load_npz reads from the output file.
    """
    session.derivative(
        CommonOptions(
            model,
            input,
            wrt,
            of,
            output,
            address,
            workers,
            timeout,
            Choices(fix, rounding, inputs, outputs),
            sparse,
        ),
        "hessian",
        mode,
    )


@app.command()
def jvp(
    model: Model,
    input: InputOption = None,
    vector: Vectors = None,
    wrt: Wrt = None,
    of: Of = None,
    output: Output = None,
    address: Address = None,
    workers: Workers = None,
    timeout: Timeout = None,
    fix: Fixed = None,
    rounding: Rounding = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
) -> None:
    """Multiply the Jacobian by tangents of the inputs."""
    session.product(
        CommonOptions(
            model, input, wrt, of, output, address, workers, timeout, Choices(fix, rounding, inputs, outputs)
        ),
        "jvp",
        vector,
    )


@app.command()
def vjp(
    model: Model,
    input: InputOption = None,
    vector: Vectors = None,
    wrt: Wrt = None,
    of: Of = None,
    output: Output = None,
    address: Address = None,
    workers: Workers = None,
    timeout: Timeout = None,
    fix: Fixed = None,
    rounding: Rounding = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
) -> None:
    """Multiply cotangents of the outputs by the Jacobian."""
    session.product(
        CommonOptions(
            model, input, wrt, of, output, address, workers, timeout, Choices(fix, rounding, inputs, outputs)
        ),
        "vjp",
        vector,
    )
