"""The page's style sheet, put on each mark of a drawing that leaves the page.

A picture file has no page around it, and few programs that show one know custom properties.  So what
``style.css`` says of a mark in its light scheme becomes the mark's own attributes.  Of selectors it knows
what the sheet uses for drawings: an element, classes, and both under ``svg``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from xml.etree import ElementTree

_ATTRIBUTES = (
    "fill",
    "fill-opacity",
    "stroke",
    "stroke-width",
    "stroke-opacity",
    "stroke-dasharray",
    "stroke-linejoin",
    "font-size",
    "font-weight",
    "text-anchor",
    "paint-order",
)
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_BLOCK = re.compile(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}")
_VARIABLE = re.compile(r"var\((--[\w-]+)\)")
_SIMPLE = re.compile(r"^(?:svg )?([a-z]*)((?:\.[\w-]+)*)$")


@dataclass(frozen=True)
class _Rule:
    tag: str
    classes: frozenset[str]
    attributes: dict[str, str]

    @property
    def weight(self) -> tuple[int, int]:
        return len(self.classes), bool(self.tag)


class Style:
    """What the sheet says of an element with given classes."""

    def __init__(self, sheet: str) -> None:
        sheet = _BLOCK.sub("", _COMMENT.sub("", sheet))
        self.variables: dict[str, str] = {}
        self._rules: list[_Rule] = []
        for selectors, body in _RULE.findall(sheet):
            declared = dict(_declaration(part) for part in body.split(";") if ":" in part)
            self.variables.update({key: value for key, value in declared.items() if key.startswith("--")})
            attributes = {key: self._resolved(declared[key]) for key in _ATTRIBUTES if key in declared}
            for selector in selectors.split(","):
                simple = _SIMPLE.match(" ".join(selector.split()))
                if simple and attributes:
                    classes = frozenset(simple[2].split(".")[1:])
                    self._rules.append(_Rule(simple[1], classes, attributes))
        self._rules.sort(key=lambda rule: rule.weight)  # stable: later ones win among equals

    def _resolved(self, value: str) -> str:
        return _VARIABLE.sub(lambda found: self.variables[found[1]], value).removesuffix("px")

    def of(self, tag: str, classes: frozenset[str]) -> dict[str, str]:
        """The attributes of a mark, by name."""
        attributes: dict[str, str] = {}
        for rule in self._rules:
            if rule.tag in ("", tag) and rule.classes <= classes:
                attributes.update(rule.attributes)
        return attributes


def _declaration(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name.strip(), value.strip()


def page_style() -> Style:
    return Style((files("market.drawing") / "figures.css").read_text(encoding="utf-8"))


def with_style(svg: str, style: Style) -> ElementTree.Element:
    """The drawing as a tree of elements that carry their own style; classes are taken away."""
    root = ElementTree.fromstring(svg)  # noqa: S314  our own drawing
    for element in root.iter():
        classes = frozenset((element.attrib.pop("class", "")).split())
        own = dict(element.attrib)
        element.attrib.update(style.of(element.tag, classes))
        # A width on the mark itself is data, as the loading of a branch; CSS has none for it.
        element.attrib.update(own)
    return root
