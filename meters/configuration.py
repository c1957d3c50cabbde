"""Configurations as strict models: whatever is wrong in one is told as file, field and value."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from grid.errors import InputError, Problem

M = TypeVar("M", bound=BaseModel)
_PATTERNS = {r"^0x[0-9a-f]{40}$": "is no address of 0x and 40 small hexadecimal digits"}


class Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def read_text(path: Path) -> str:
    """Raises :class:`InputError`."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError.single(str(path), "", error.strerror, "so it cannot be read") from None
    except UnicodeDecodeError:
        raise InputError.single(str(path), "", "…", "is no text in UTF-8") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Raises :class:`InputError`."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError.single(str(path), "", str(error), "so it is no TOML document") from None


def parsed(source: str, model: type[M], document: object, place: Sequence[int | str] = ()) -> M:
    """The model in ``document``, which stands at ``place`` of ``source``. Raises :class:`InputError` with
    everything that is wrong.
    """
    return parsed_json(source, model, json.dumps(document, default=str), place)


def parsed_json(source: str, model: type[M], text: str, place: Sequence[int | str] = ()) -> M:
    """As :func:`parsed`, of a JSON text."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise InputError(
            Problem(source, field_path((*place, *detail["loc"])), *_said(detail))
            for detail in details
            if not _follows(detail, details)
        ) from None


def _follows(detail: Any, details: Sequence[Any]) -> bool:
    """Whether a list counts as too short because what is wrong in it was left out."""
    place = detail["loc"]
    return detail["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in details
    )


def field_path(place: Sequence[int | str]) -> str:
    """``meters[3].source.host``."""
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _said(detail: Any) -> tuple[object, str]:
    value = detail["input"]
    if detail["type"] == "missing":
        return None, "is missing"
    if detail["type"] == "extra_forbidden":
        return value, "is no field here"
    if isinstance(value, dict | list):
        value = "…"
    if words := _PATTERNS.get(detail.get("ctx", {}).get("pattern", "")):
        return value, words
    reason = detail["msg"].removeprefix("Value error, ")
    return value, reason[:1].lower() + reason[1:]
