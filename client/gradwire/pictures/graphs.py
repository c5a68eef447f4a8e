"""Draws the graph of a function."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

import gradwire_wire as wire
from gradwire._face.evaluation import BaseFunction
from gradwire._sync.function import Function
from gradwire.errors import InvalidArgumentError
from gradwire.frontends.sources import load
from gradwire.graphs.spec import ArraySpec
from gradwire.pictures.drawing import Drawing, draw, figure, svg
from gradwire.pictures.sketch import sketch


@dataclass(frozen=True)
class Picture:
    """A drawn graph: a notebook displays it, `svg` is its source, `save` writes it to a file."""

    drawing: Drawing
    title: str

    @property
    def svg(self) -> str:
        """The picture as SVG source."""
        return svg(self.drawing)

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<Picture of {self.title}, {self.drawing.width:.0f} x {self.drawing.height:.0f}>"

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a .svg file, or with matplotlib a .png or .pdf file, and return its path.

        Raises:
            ValueError: another suffix.
            ModuleNotFoundError: a .png or .pdf file, and matplotlib is not installed.
        """
        target = Path(path)
        kind = target.suffix.lower()
        if kind == ".svg":
            target.write_text(self.svg, encoding="utf-8")
        elif kind in (".png", ".pdf"):
            try:
                made = figure(self.drawing)
            except ModuleNotFoundError:
                raise ModuleNotFoundError(
                    f"{kind} is drawn with matplotlib: pip install 'gradwire[plot]', or save a .svg",
                    name="matplotlib",
                ) from None
            made.savefig(target, dpi=144)
        else:
            raise ValueError(f"{target.name}: a picture is saved as .svg, .png or .pdf")
        return target


def graph(source: Any, *specs: ArraySpec | wire.Array, limit: int = 60) -> Picture:
    """Draw the graph of a function: its inputs, every operator with its constants, and its outputs.

        gw.graph(f).save("f.svg")

    Arrows are labeled with shapes. Small bodies of Loop, Scan and If are drawn inside their boxes. Transforms
    are not drawn: the graph is that of the function before them, and the title names them.

    Args:
        source: a function of a client, or what `Client.function` takes: a Python function, an
            `onnx.ModelProto`, its bytes, its text, or a path.
        *specs: shapes and dtypes of the arguments of a Python function, or arrays like them.
        limit: the most nodes to draw; the others are summarized in one box.

    Returns:
        The picture, which a notebook displays.

    Raises:
        InvalidArgumentError: no function can be made of the source, or specs are given for a function of a
            client.
        TraceError: a Python function cannot be traced.
        ValueError: `limit` is below one.
    """
    if limit < 1:
        raise ValueError(f"limit={limit}: at least one box is drawn")
    if isinstance(source, Function):
        source = source.asynchronous
    function = source if isinstance(source, BaseFunction) else None
    if function is not None and specs:
        raise InvalidArgumentError("this function has its shapes already: draw it without specs")
    loaded = load(source, specs) if function is None else function._model
    model = onnx.load_model_from_string(loaded.data)
    steps = () if function is None else function.transforms
    title = " | ".join([model.graph.name or "graph", *(step.kind for step in steps)])
    return Picture(draw(sketch(model, title, limit, loaded.bound)), title)
