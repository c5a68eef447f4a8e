"""What the commands do: connect to a server, make one request, and print or store its result."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import typer

import gradwire as gw
from gradwire.graphs.signature import Signature
from gradwire_server.cli.values import Array, read_assignments, write
from gradwire_server.settings import Settings


@dataclass(frozen=True)
class Request:
    """The options that all evaluating commands have in common."""

    model: Path
    inputs: list[str] | None
    wrt: list[str] | None
    of: list[str] | None
    output: Path | None
    address: str | None
    workers: int | None
    timeout: float | None
    fixed: list[str] | None = None
    rounding: str | None = None

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
def _client(address: str | None, workers: int | None) -> Iterator[gw.Client]:
    try:
        if address is not None:
            with gw.connect(address) as client:
                yield client
        else:
            with gw.local(workers=workers or Settings().worker_count) as client:
                yield client
    except (gw.GradwireError, OSError) as error:
        typer.echo(f"gradwire: {error}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def _function(request: Request) -> Iterator[gw.Function]:
    with _client(request.address, request.workers) as client:
        function = client.function(
            _source(request.model),
            fixed=read_assignments(request.fixed, "--fix") or None,
            rounding=_rounding(request.rounding),
        )
        for warning in function.describe().warnings:
            typer.echo(f"warning: {warning}", err=True)
        yield function


def _source(path: Path) -> Path | str:
    """Return the path of a serialized model, or the text of one in ONNX's textual form."""
    with path.open("rb") as file:
        start = file.read(1)
    return path.read_text() if start == b"<" else path


def _rounding(name: str | None) -> Literal["straight_through"] | None:
    if name is None or name == "straight_through":
        return name  # type: ignore[return-value]  # a comparison narrows no str to a literal
    raise typer.BadParameter(f"{name!r} is not straight_through", param_hint="--rounding")


def _on_terminal() -> bool:
    return sys.stderr.isatty()


def inspect(request: Request) -> None:
    """Print a model's inputs, outputs, operators and size."""
    with _function(request) as function:
        info = function.describe()
        source = _source(request.model)
        graph = (onnx.parser.parse_model(source) if isinstance(source, str) else onnx.load(str(source))).graph
        operators = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in graph.node)
        print(f"graph {info.graph_id}")
        for title, values in (("inputs", function.signature.inputs), ("outputs", function.signature.outputs)):
            print(f"{title}:")
            for value in values:
                print(f"  {value}")
        print(f"{info.node_count} nodes at opset {info.opset}, {info.weight_bytes:,} bytes of weights")
        print("operators: " + ", ".join(f"{name} x {count}" for name, count in sorted(operators.items())))
        if info.forward_only:
            print(f"forward mode only: {info.forward_only_reason}")


def _of(request: Request, kind: str) -> Any:
    """Return the outputs named; a Hessian takes a single one."""
    if kind == "hessian" and request.of and len(request.of) == 1:
        return request.of[0]
    return request.of


def show_plan(request: Request, kind: str, mode: str | None) -> None:
    """Print the plan of a derivative."""
    if kind not in ("jacobian", "hessian"):
        raise typer.BadParameter(f"{kind!r} is neither jacobian nor hessian", param_hint="--kind")
    with _function(request) as function:
        options: dict[str, Any] = {"kind": kind, "wrt": request.wrt, "of": _of(request, kind), "mode": mode}
        arrays = request.arrays(function.signature)
        print(function.plan(arrays, timeout=request.timeout, **options))


def value(request: Request) -> None:
    """Evaluate a model and write its outputs."""
    with _function(request) as function:
        outputs = function.value(request.arrays(function.signature), timeout=request.timeout)
        write(_named([value.name for value in function.signature.outputs], outputs), request.output)


def derivative(request: Request, kind: str, mode: str | None) -> None:
    """Compute a Jacobian or Hessian and write it, one array for each pair of names."""
    with _function(request) as function:
        arrays = request.arrays(function.signature)
        compute = function.jacobian if kind == "jacobian" else function.hessian
        result, info = compute(
            arrays,
            wrt=request.wrt,
            of=_of(request, kind),
            mode=mode,
            progress=_on_terminal(),
            timeout=request.timeout,
            return_info=True,
        )
        entries = info.plan.entries
        names = [f"d{entry.row}_d{entry.column}" for entry in entries]
        write(_named(names, result), request.output)
        if _on_terminal():
            typer.echo(
                f"{info.plan.mode.replace('_', ' ')}, {info.plan.blocks} blocks, {info.elapsed:.2f} s",
                err=True,
            )


def product(request: Request, kind: str, vectors: Sequence[str] | None) -> None:
    """Compute a jvp or vjp and write it."""
    with _function(request) as function:
        arrays = request.arrays(function.signature)
        make = function.as_jvp if kind == "jvp" else function.as_vjp
        derived = make(wrt=request.wrt, of=request.of)
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
        outputs = derived.value(arrays, timeout=request.timeout)
        write(_named([value.name for value in derived.signature.outputs], outputs), request.output)


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
    return dict(zip(names, leaves, strict=True))
