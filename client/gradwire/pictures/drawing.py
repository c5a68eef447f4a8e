"""Turns a sketch into shapes on a plane, and shapes into SVG or a matplotlib figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import Any

from gradwire.pictures.layers import Point, arrange
from gradwire.pictures.sketch import Box, Sketch

# The width of text is estimated from the width of a character, plain and bold, relative to the font size.
_CHARACTER, _BOLD = 0.62, 0.72
_FONT = "DejaVu Sans, Verdana, Segoe UI, sans-serif"

_TITLE, _LINE, _LABEL = 12.0, 9.5, 8.5
_PADDING = 8.0
_MARGIN = 14.0
_HALO = 'fill="#ffffff" stroke="#ffffff" stroke-width="3"'


@dataclass(frozen=True)
class Style:
    """The look of a kind of box: colors of fill and outline, radius of its corners, dashed or not."""

    fill: str
    stroke: str
    radius: float
    dashed: bool = False


STYLES = {
    "input": Style("#e3f4e6", "#3c8d4d", 14),
    "output": Style("#fdebd9", "#c0701a", 14),
    "node": Style("#eaf1fb", "#4a6fa5", 5),
    "more": Style("#f6f6f6", "#8a8a8a", 5, True),
    "subgraph": Style("#fafafa", "#c4c9d2", 5),
}


@dataclass(frozen=True)
class Rectangle:
    """A box; `x` and `y` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    style: Style


@dataclass(frozen=True)
class Curve:
    """A smooth arrow through points, with its head at the last."""

    points: tuple[Point, ...]


@dataclass(frozen=True)
class Text:
    """A line of text at its `anchor` ("start" or "middle") and baseline; a halo separates it from arrows."""

    x: float
    y: float
    text: str
    size: float
    color: str
    anchor: str = "middle"
    bold: bool = False
    halo: bool = False


Shape = Rectangle | Curve | Text


@dataclass(frozen=True)
class Drawing:
    """Shapes in the order in which they are painted, and the size of the whole."""

    width: float
    height: float
    shapes: tuple[Shape, ...]


def draw(sketch: Sketch) -> Drawing:
    """Draw a sketch, with its title above."""
    inner = _draw(sketch)
    wide = max(inner.width, _wide(sketch.title, _TITLE, _BOLD))
    title = Text(_MARGIN, _MARGIN + _TITLE, sketch.title, _TITLE, "#333333", "start", True)
    x, y = _MARGIN + (wide - inner.width) / 2, _MARGIN + 2.4 * _TITLE
    shapes = (title, *moved(inner.shapes, x, y))
    return Drawing(wide + 2 * _MARGIN, inner.height + y + _MARGIN, shapes)


def _draw(sketch: Sketch) -> Drawing:
    parts = [_draw_box(box) for box in sketch.boxes]
    layout = arrange(
        [(part.width, part.height) for part in parts],
        [(arrow.source, arrow.target) for arrow in sketch.arrows],
    )
    shapes: list[Shape] = [Curve(route) for route in layout.routes]
    for part, (x, y) in zip(parts, layout.corners, strict=True):
        shapes += moved(part.shapes, x, y)
    labeled = set()
    right = layout.size[0]
    for arrow, route in zip(sketch.arrows, layout.routes, strict=True):
        if arrow.label and (arrow.source, arrow.label) not in labeled:
            labeled.add((arrow.source, arrow.label))
            x, y = route[0]
            shapes.append(Text(x + 4, y + 11, arrow.label, _LABEL, "#6b7280", "start", halo=True))
            right = max(right, x + 4 + _wide(arrow.label, _LABEL))
    return Drawing(right, layout.size[1], tuple(shapes))


def _draw_box(box: Box) -> Drawing:
    inside = [_draw(one) for one in box.inside]
    names = [one.title for one in box.inside]
    texts = [
        _wide(box.title, _TITLE, _BOLD if box.kind == "node" else _CHARACTER),
        *(_wide(line, _LINE) for line in box.lines),
    ]
    inner_width = sum(part.width + 2 * _PADDING for part in inside) + _PADDING * max(0, len(inside) - 1)
    width = max(48.0, inner_width, *texts) + 2 * _PADDING
    y = _PADDING + _TITLE
    shapes: list[Shape] = [Text(width / 2, y - 2, box.title, _TITLE, "#1f2937", bold=box.kind == "node")]
    for line in box.lines:
        y += _LINE + 3
        shapes.append(Text(width / 2, y - 2, line, _LINE, "#4b5563"))
    if inside:
        y += _PADDING
        height = max(part.height for part in inside) + 2 * _PADDING + _LINE
        x = (width - inner_width) / 2
        for name, part in zip(names, inside, strict=True):
            frame = part.width + 2 * _PADDING
            shapes.append(Rectangle(x, y, frame, height, STYLES["subgraph"]))
            shapes.append(Text(x + 5, y + _LINE + 1, name, _LINE, "#6b7280", "start"))
            shapes += moved(part.shapes, x + _PADDING, y + _PADDING + _LINE)
            x += frame + _PADDING
        y += height
    height = y + _PADDING
    return Drawing(width, height, (Rectangle(0, 0, width, height, STYLES[box.kind]), *shapes))


def _wide(text: str, size: float, character: float = _CHARACTER) -> float:
    return len(text) * size * character


def moved(shapes: Sequence[Shape], x: float, y: float) -> Iterator[Shape]:
    """Yield the shapes moved by (x, y)."""
    for one in shapes:
        match one:
            case Curve():
                yield Curve(tuple((px + x, py + y) for px, py in one.points))
            case Rectangle() | Text():
                yield replace(one, x=one.x + x, y=one.y + y)


def bends(points: Sequence[Point]) -> Iterator[tuple[Point, Point, Point]]:
    """Yield cubic curves through points, vertical at each: two control points and an end point."""
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        yield (x0, middle), (x1, middle), (x1, y1)


def svg(drawing: Drawing) -> str:
    """Return the drawing as one self-contained SVG element, with text escaped."""
    wide, high = round(drawing.width, 1), round(drawing.height, 1)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
        f'style="max-width:100%" font-family="{_FONT}">',
        f'<rect width="{wide}" height="{high}" rx="6" fill="#ffffff"/>',
    ]
    lines.extend(_element(one) for one in drawing.shapes)
    return "\n".join([*lines, "</svg>\n"])


def _element(shape: Shape) -> str:
    match shape:
        case Rectangle():
            dash = ' stroke-dasharray="5 3"' if shape.style.dashed else ""
            return (
                f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" '
                f'height="{shape.height:.1f}" rx="{shape.style.radius}" fill="{shape.style.fill}" '
                f'stroke="{shape.style.stroke}"{dash}/>'
            )
        case Curve():
            (x, y), (tip_x, tip_y) = shape.points[0], shape.points[-1]
            path = f"M{x:.1f} {y:.1f}" + "".join(
                "C" + " ".join(f"{px:.1f} {py:.1f}" for px, py in bend) for bend in bends(shape.points)
            )
            head = f"M{tip_x - 3:.1f} {tip_y - 6:.1f}L{tip_x:.1f} {tip_y:.1f}L{tip_x + 3:.1f} {tip_y - 6:.1f}"
            return f'<path d="{path}{head}" fill="none" stroke="#9aa3b2" stroke-width="1.2"/>'
        case Text():
            look = ' font-weight="bold"' if shape.bold else ""
            place = (
                f'x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size}" text-anchor="{shape.anchor}"'
            )
            text = f'<text {place} fill="{shape.color}"{look}>{escape(shape.text)}</text>'
            if not shape.halo:
                return text
            # A second element beneath it, since some renderers do not know paint-order.
            return f'<text {place} aria-hidden="true" {_HALO}>{escape(shape.text)}</text>{text}'


def figure(drawing: Drawing) -> Any:
    """Return the drawing as a matplotlib figure of 72 units an inch."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path
    from matplotlib.patheffects import withStroke

    made = Figure(figsize=(drawing.width / 72, drawing.height / 72))
    ax = made.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, drawing.width), ylim=(drawing.height, 0))
    ax.set_axis_off()
    for order, one in enumerate(drawing.shapes):
        match one:
            case Rectangle():
                radius = min(one.style.radius, one.height / 2)
                box = FancyBboxPatch(
                    (one.x + radius, one.y + radius),
                    one.width - 2 * radius,
                    one.height - 2 * radius,
                    boxstyle=f"round,pad={radius},rounding_size={radius}",
                    facecolor=one.style.fill,
                    edgecolor=one.style.stroke,
                    linestyle="--" if one.style.dashed else "-",
                    linewidth=1,
                    zorder=order,
                )
                ax.add_patch(box)
            case Curve():
                x, y = one.points[-1]
                controls = [point for bend in bends(one.points) for point in bend]
                vertices = [one.points[0], *controls, (x - 3, y - 6), (x, y), (x + 3, y - 6)]
                codes = [Path.MOVETO, *([Path.CURVE4] * len(controls)), Path.MOVETO, Path.LINETO, Path.LINETO]
                path = Path(vertices, codes)
                ax.add_patch(PathPatch(path, fill=False, edgecolor="#9aa3b2", linewidth=1.2, zorder=order))
            case Text():
                ax.text(
                    one.x,
                    one.y,
                    one.text,
                    fontsize=one.size * 0.94,
                    color=one.color,
                    ha="center" if one.anchor == "middle" else "left",
                    va="baseline",
                    weight="bold" if one.bold else "normal",
                    parse_math=False,
                    zorder=order,
                    path_effects=[withStroke(linewidth=3, foreground="white")] if one.halo else [],
                )
    return made
