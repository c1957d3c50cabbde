"""The page around the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from market.cli.numbers import Group


@dataclass(frozen=True)
class Card:
    """One of the figures at the top; ``alarm`` where it is not as it should be."""

    name: str
    value: str
    unit: str
    more: str
    alarm: bool = False


@dataclass(frozen=True)
class Key:
    """An entry of a legend; ``css`` is the colour's class and the key's form."""

    css: str
    name: str


@dataclass(frozen=True)
class Figure:
    """One drawing in two sizes, with what it shows in words."""

    title: str
    text: str
    legend: Sequence[Key]
    wide: str
    narrow: str


@dataclass(frozen=True)
class Page:
    title: str
    lead: str
    cards: Sequence[Card]
    figures: Sequence[Figure]
    groups: Sequence[Group]
    notes: Sequence[str]


def render(page: Page) -> str:
    """The page as one HTML document with style and drawings inside."""
    folder = files("market.cli.report")
    template = (folder / "page.html").read_text(encoding="utf-8")
    style = "\n".join(
        place.read_text(encoding="utf-8")
        for place in (files("market.drawing") / "figures.css", folder / "style.css")
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        title=page.title,
        lead=page.lead,
        cards=page.cards,
        figures=page.figures,
        groups=page.groups,
        notes=page.notes,
        style=Markup(style),  # noqa: S704  our own file
    )
