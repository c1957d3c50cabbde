"""A styled drawing as a file: SVG as it is, PNG and PDF by matplotlib.

Only what the drawings of this package are made of is understood: paths of straight lines, rectangles,
circles, texts, groups that are moved or clipped, and drawings inside drawings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

PX_PER_INCH = 96
POINTS_PER_PX = 72 / PX_PER_INCH
PNG_DOTS_PER_INCH = 192
_STEP = re.compile(r"([MLHVZv])|(-?[\d.]+(?:e-?\d+)?)")
_MOVE = re.compile(r"translate\(([-\d.]+)[ ,]+([-\d.]+)\)")
_ALIGN = {"middle": "center", "end": "right"}
SUFFIXES = (".svg", ".png", ".pdf")


def write_drawing(path: Path, drawing: ElementTree.Element) -> None:
    """Writes the file whose kind its suffix names."""
    if path.suffix == ".svg":
        drawing.set("xmlns", "http://www.w3.org/2000/svg")
        drawing.set("font-family", "system-ui, sans-serif")
        path.write_text(ElementTree.tostring(drawing, encoding="unicode"), encoding="utf-8")
        return
    # matplotlib takes a second to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = float(drawing.attrib["width"]), float(drawing.attrib["height"])
    figure = Figure(figsize=(width / PX_PER_INCH, height / PX_PER_INCH), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    _draw(axes, drawing, (0.0, 0.0), None, {})
    figure.savefig(
        path, dpi=PNG_DOTS_PER_INCH, metadata={"CreationDate": None} if path.suffix == ".pdf" else {}
    )


def _draw(
    axes: Any, parent: ElementTree.Element, origin: tuple[float, float], clip: Any, clips: dict[str, Any]
) -> None:
    from matplotlib import patches
    from matplotlib.patheffects import withStroke

    for element in parent:
        style = element.attrib
        if element.tag == "clipPath":
            box = element[0].attrib
            clips[style["id"]] = patches.Rectangle(
                (origin[0] + float(box["x"]), origin[1] + float(box["y"])),
                float(box["width"]),
                float(box["height"]),
                transform=axes.transData,
            )
        elif element.tag in ("g", "svg"):
            move = _MOVE.match(style.get("transform", ""))
            inner = (origin[0] + float(move[1]), origin[1] + float(move[2])) if move else origin
            named = style.get("clip-path", "")[5:-1]
            _draw(axes, element, inner, clips.get(named, clip), clips)
        elif element.tag == "text":
            words = axes.text(
                origin[0] + float(style["x"]),
                origin[1] + float(style["y"]),
                element.text or "",
                color=style.get("fill", "black"),
                fontsize=float(style.get("font-size", 11)) * POINTS_PER_PX,
                fontweight=style.get("font-weight", "normal"),
                horizontalalignment=_ALIGN.get(style.get("text-anchor", ""), "left"),
                verticalalignment="baseline",
            )
            if style.get("paint-order") == "stroke":  # letters stand out from the lines behind them
                width = float(style["stroke-width"]) * POINTS_PER_PX
                words.set_path_effects([withStroke(linewidth=width, foreground=style["stroke"])])
        elif element.tag in ("path", "rect", "circle"):
            patch = _patch(element, origin)
            axes.add_patch(patch)
            if clip is not None:
                patch.set_clip_path(clip)


def _patch(element: ElementTree.Element, origin: tuple[float, float]) -> Any:
    from matplotlib import patches
    from matplotlib.colors import to_rgba
    from matplotlib.path import Path as Outline

    style = element.attrib
    fill, stroke = style.get("fill", "black"), style.get("stroke", "none")
    dashes = [float(part) for part in style.get("stroke-dasharray", "").split()]
    look: dict[str, Any] = {
        "facecolor": to_rgba(fill, float(style.get("fill-opacity", 1))) if fill != "none" else "none",
        "edgecolor": to_rgba(stroke, float(style.get("stroke-opacity", 1))) if stroke != "none" else "none",
        "linewidth": float(style.get("stroke-width", 1)) * POINTS_PER_PX if stroke != "none" else 0.0,
        "joinstyle": "round",
        "capstyle": "butt",
    }
    if dashes:
        look["linestyle"] = (0, [part / float(style.get("stroke-width", 1)) for part in dashes])
    if element.tag == "circle":
        centre = (origin[0] + float(style["cx"]), origin[1] + float(style["cy"]))
        return patches.Circle(centre, float(style["r"]), **look)
    if element.tag == "rect":
        corner = (origin[0] + float(style["x"]), origin[1] + float(style["y"]))
        return patches.Rectangle(corner, float(style["width"]), float(style["height"]), **look)
    points, codes = zip(*_outline(style["d"], origin), strict=True)
    return patches.PathPatch(Outline(list(points), list(codes)), **look)


def _outline(d: str, origin: tuple[float, float]) -> Iterator[tuple[tuple[float, float], int]]:
    """Points and codes of a path of straight lines, in the figure's px."""
    from matplotlib.path import Path as Outline

    tokens = [command or float(number) for command, number in _STEP.findall(d)]
    x, y, at, command = 0.0, 0.0, 0, "M"
    first = (0.0, 0.0)
    while at < len(tokens):
        if isinstance(tokens[at], str):
            command, at = str(tokens[at]), at + 1
        if command == "Z":
            yield (origin[0] + first[0], origin[1] + first[1]), int(Outline.CLOSEPOLY)
            continue
        value = float(tokens[at])
        if command in "ML":
            x, y, at = value, float(tokens[at + 1]), at + 2
        elif command == "H":
            x, at = value, at + 1
        else:
            y, at = (y + value if command == "v" else value), at + 1
        if command == "M":
            first = (x, y)
        yield (origin[0] + x, origin[1] + y), int(Outline.MOVETO if command == "M" else Outline.LINETO)
        if command == "M":
            command = "L"
