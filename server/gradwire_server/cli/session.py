"""What the commands do: connect to a server, make one request, and print or store its result."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import typer

import gradwire as gw
from gradwire._face.arguments import fixed_type
from gradwire.graphs.files.reading import read
from gradwire.graphs.signature import Signature, Value
from gradwire.transport.address import VARIABLE as ADDRESS_VARIABLE
from gradwire_server.cli.inspection import contents, without_derivative
from gradwire_server.cli.sparse import check_sparse_output, write_sparse
from gradwire_server.cli.values import Array, read_assignments, write


@dataclass(frozen=True)
class Choices:
    """What a function is made of in a model, as the command line has it."""

    fixed: list[str] | None
    rounding: str | None
    inputs: list[str] | None
    outputs: list[str] | None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `client.function`.

        Raises:
            typer.BadParameter: one is malformed.
        """
        return {
            "fixed": read_assignments(self.fixed, "--fix") or None,
            "rounding": _rounding(self.rounding),
            "inputs": _names(self.inputs, "--inputs", "--input"),
            "outputs": _names(self.outputs, "--outputs", "--output"),
        }


def _names(names: list[str] | None, option: str, other: str) -> list[str] | None:
    for name in names or ():
        if "=" in name or name.endswith((".npy", ".npz")):
            raise typer.BadParameter(
                f"{name!r} is no name of a value in the model; {other} is the option for arrays",
                param_hint=option,
            )
    return names or None


@dataclass(frozen=True)
class Protection:
    """How the connection to a server is protected; its token is in the environment."""

    tls: bool | None = None
    ca: Path | None = None
    cert: tuple[Path, Path] | None = None


PROTECTION: ContextVar[Protection] = ContextVar("protection", default=Protection())  # noqa: B039  (frozen)
"""That of the connections which the running command makes."""


@dataclass(frozen=True)
class CommonOptions:
    """The options that all evaluating commands have in common."""

    model: Path
    inputs: list[str] | None
    wrt: list[str] | None
    of: list[str] | None
    output: Path | None
    address: str | None
    workers: int | None
    timeout: float | None
    choices: Choices
    sparse: bool = False

    def arrays(self, signature: Signature) -> dict[str, Array]:
        """Read the inputs, in the dtypes that the model asks for."""
        arrays = read_assignments(self.inputs, "--input")
        types = {value.name: value.dtype for value in signature.inputs}
        return {name: _literal_as(array, types.get(name)) for name, array in arrays.items()}


def _literal_as(array: Array, dtype: np.dtype[Any] | None) -> Array:
    """Convert whole numbers from the command line to floating point where the model asks for that."""
    if dtype is not None and array.dtype.kind in "bi" and dtype.kind == "f":
        return array.astype(dtype)
    return array


@contextmanager
def errors_in_a_line() -> Iterator[None]:
    """Print what went wrong without a traceback, and end with status 1."""
    try:
        yield
    except (gw.GradwireError, OSError) as error:
        typer.echo(f"gradwire: {error}", err=True)
        raise typer.Exit(1) from None


def require_server(what: str) -> None:
    """Check that the server is installed beside the command line; raises `gw.GradwireError` otherwise."""
    missing = [name for name in ("jax", "ray", "pydantic_settings", "psutil") if find_spec(name) is None]
    if missing:
        raise gw.GradwireError(
            f"{what} needs the server, which is not installed ({', '.join(missing)}): "
            "pip install 'gradwire[server]'"
        )


def _connected(address: str | None, workers: int | None) -> gw.Client:
    protection = PROTECTION.get()
    if address is not None or ADDRESS_VARIABLE in os.environ:
        return gw.connect(address, tls=protection.tls, ca=protection.ca, cert=protection.cert)
    require_server(f"a local server (there is no --address, nor {ADDRESS_VARIABLE})")
    from gradwire_server.settings import Settings
    from gradwire_server.settings_sources import SettingsError

    try:
        return gw.local(workers=workers or Settings.read().worker_count)
    except SettingsError as error:
        raise gw.GradwireError(f"the settings are not valid\n{error}") from None


@contextmanager
def _function(options: CommonOptions) -> Iterator[gw.Function]:
    with errors_in_a_line(), _connected(options.address, options.workers) as client:
        function = client.function(options.model, **options.choices.arguments())
        for warning in function.describe().warnings:
            typer.echo(f"warning: {warning}", err=True)
        yield function


def _rounding(name: str | None) -> Literal["straight_through"] | None:
    if name is None or name == "straight_through":
        return name  # type: ignore[return-value]  # a comparison narrows no str to a literal
    raise typer.BadParameter(f"{name!r} is not straight_through", param_hint="--rounding")


def _on_terminal() -> bool:
    return sys.stderr.isatty()


def inspect(options: CommonOptions) -> None:
    """Print a model's inputs, outputs, operators and size."""
    with _function(options) as function:
        info = function.describe()
        proto = read(options.model)
        print(f"graph {info.graph_id}")
        for title, values in (("inputs", function.signature.inputs), ("outputs", function.signature.outputs)):
            print(f"{title}:")
            for value in values:
                print(f"  {value}")
        print(f"opset {info.opset}, {info.weight_bytes:,} bytes of weights")
        for line in contents(proto):
            print(line)
        reason = "" if options.choices.rounding else without_derivative(proto, function.signature)
        if reason:
            print(reason)
        elif info.forward_only:
            print(f"forward mode only: {info.forward_only_reason}")


def _of(options: CommonOptions, kind: str) -> Any:
    """Return the outputs named; a Hessian takes a single one."""
    if kind == "hessian" and options.of and len(options.of) == 1:
        return options.of[0]
    return options.of


def _is_fixed(value: Value) -> bool:
    return value.shape is not None and all(isinstance(extent, int) for extent in value.shape)


def show_plan(options: CommonOptions, kind: str, mode: str | None) -> None:
    """Print the plan of a derivative."""
    if kind not in ("jacobian", "hessian"):
        raise typer.BadParameter(f"{kind!r} is neither jacobian nor hessian", param_hint="--kind")
    with _function(options) as function:
        chosen: dict[str, Any] = {"kind": kind, "wrt": options.wrt, "of": _of(options, kind), "mode": mode}
        chosen["sparse"] = options.sparse
        arrays = options.arrays(function.signature)
        for value in function.signature.inputs:
            if not _is_fixed(value) and value.name not in arrays:
                raise typer.BadParameter(f"{value}: its shape is open, give an array", param_hint="--input")
        print(function.plan(arrays, timeout=options.timeout, **chosen))


def check(options: CommonOptions) -> None:
    """Check a model's derivatives and print the table of what was compared; draw the inputs left out."""
    with _function(options) as function:
        arrays = options.arrays(function.signature)
        random = np.random.default_rng(0)
        for value in function.signature.inputs:
            if value.name not in arrays and value.floating and _is_fixed(value):
                shape, dtype = fixed_type(value)
                arrays[value.name] = np.asarray(random.standard_normal(shape)).astype(dtype)
                typer.echo(f"{value}: drawn from a standard normal distribution", err=True)
        function.check(arrays, timeout=options.timeout)


def value(options: CommonOptions) -> None:
    """Evaluate a model and write its outputs."""
    with _function(options) as function:
        outputs = function.value(options.arrays(function.signature), timeout=options.timeout)
        write(_named([value.name for value in function.signature.outputs], outputs), options.output)


def derivative(options: CommonOptions, kind: str, mode: str | None) -> None:
    """Compute a Jacobian or Hessian and write it: one array for each pair of names, or one sparse matrix."""
    if options.sparse:
        with errors_in_a_line():
            check_sparse_output(options.output)
    with _function(options) as function:
        arrays = options.arrays(function.signature)
        compute = function.jacobian if kind == "jacobian" else function.hessian
        result, info = compute(
            arrays,
            wrt=options.wrt,
            of=_of(options, kind),
            mode=mode,
            sparse=options.sparse,
            joined=options.sparse,
            progress=_on_terminal(),
            timeout=options.timeout,
            return_info=True,
        )
        if options.sparse:
            write_sparse(result, info.plan, options.output)
            return
        entries = info.plan.entries
        names = [f"d{entry.row}_d{entry.column}" for entry in entries]
        write(_named(names, result), options.output)
        if _on_terminal():
            typer.echo(
                f"{info.plan.mode.replace('_', ' ')}, {info.plan.blocks} blocks, {info.elapsed:.2f} s",
                err=True,
            )


def product(options: CommonOptions, kind: str, vectors: Sequence[str] | None) -> None:
    """Compute a jvp or vjp and write it."""
    with _function(options) as function:
        arrays = options.arrays(function.signature)
        make = function.as_jvp if kind == "jvp" else function.as_vjp
        derived = make(wrt=options.wrt, of=options.of)
        seeds = derived.signature.inputs[len(function.signature.inputs) :]
        suffix = ".tangent" if kind == "jvp" else ".cotangent"
        for name, array in read_assignments(list(vectors or []), "--vector").items():
            full = name if any(seed.name == name for seed in seeds) else name + suffix
            chosen = next((seed for seed in seeds if seed.name == full), None)
            if chosen is None:
                known = ", ".join(seed.name.removesuffix(suffix) for seed in seeds)
                raise typer.BadParameter(
                    f"{name!r} takes no vector here; these do: {known}", param_hint="--vector"
                )
            arrays[full] = _literal_as(array, chosen.dtype)
        missing = [seed.name.removesuffix(suffix) for seed in seeds if seed.name not in arrays]
        if missing:
            which = "--wrt" if kind == "jvp" else "--of"
            raise typer.BadParameter(
                f"a vector is missing for {', '.join(missing)}: "
                f"write {missing[0]}=VALUE, or choose with {which}",
                param_hint="--vector",
            )
        outputs = derived.value(arrays, timeout=options.timeout)
        write(_named([value.name for value in derived.signature.outputs], outputs), options.output)


def _named(names: Sequence[str], result: Any) -> Mapping[str, Array]:
    """Flatten a nested result into arrays by name."""
    leaves: list[Array] = []

    def collect(value: Any) -> None:
        if isinstance(value, tuple | list):
            for item in value:
                collect(item)
        else:
            leaves.append(value)

    collect(result)
    if len(set(names)) != len(names):
        raise typer.BadParameter(
            f"two results would be called the same ({', '.join(names)}): choose one with --wrt and --of"
        )
    return dict(zip(names, leaves, strict=True))
