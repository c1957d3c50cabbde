"""Nets in the files that other programs write, as pandapower nets.

pandapower's own JSON and Excel, and MATPOWER's cases (``.m`` as text, ``.mat``).
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from grid.errors import FeederError, Problem

SUFFIXES = (".json", ".xlsx", ".m", ".mat")
_WANTED = {
    ".json": "is no pandapower net: pandapower.to_json writes one",
    ".xlsx": "is no pandapower net: pandapower.to_excel writes one",
    ".m": "is no MATPOWER case",
    ".mat": "is no MATPOWER case",
}


def read_net(path: Path, f_hz: float = 50.0) -> Any:
    """The net in a file; ``f_hz`` is for those that do not tell. Raises :class:`FeederError`."""
    if path.suffix not in SUFFIXES:
        reason = f"is none of {', '.join(SUFFIXES)}"
        raise FeederError([Problem(str(path), "format", path.suffix, reason)])
    if not path.is_file():
        raise FeederError([Problem(str(path), "", path.name, "is no file")])
    logging.getLogger("pandapower").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = _read(path, f_hz)
            _ = net.bus, net.line, net.ext_grid
    except ImportError as error:
        reason = f"needs more packages: pip install 'peergrid[formats]' ({error.name})"
        raise FeederError([Problem(str(path), "format", path.suffix, reason)]) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = f"cannot be read: {getattr(error, 'strerror', None) or 'it is no text in UTF-8'}"
        raise FeederError([Problem(str(path), "", None, reason)]) from None
    except Exception as error:
        # What the program stumbled over says something to its authors alone.
        is_internal = isinstance(error, AttributeError | TypeError | LookupError | NameError)
        words = "" if is_internal else f" ({' '.join(str(error).split())[:200]})"
        raise FeederError([Problem(str(path), "", None, f"{_WANTED[path.suffix]}{words}")]) from None
    return net


def _read(path: Path, f_hz: float) -> Any:
    import pandapower.toolbox

    if path.suffix == ".json":
        return pandapower.from_json(str(path))
    if path.suffix == ".xlsx":
        import openpyxl  # noqa: F401  named in the error where it is missing: pandas' own words are longer

        return pandapower.from_excel(str(path))
    from pandapower.converter.matpower import from_mpc

    if path.suffix == ".m":
        import matpowercaseframes  # noqa: F401  as above
    net = from_mpc(str(path), f_hz=f_hz)
    # MATPOWER counts buses from 1, the converter from 0: the file's own numbers are what people know.
    pandapower.toolbox.reindex_buses(net, {bus: bus + 1 for bus in net.bus.index})
    return net
