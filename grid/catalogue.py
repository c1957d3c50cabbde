"""Feeders by name, and the year profiles of their loads and generators.

Names (design section 9): ``simbench:<code>``, ``pandapower:<function>[:<argument>]``, a folder under
``feeders/`` or one's own (its scenario names the net), or the path of a pandapower JSON net.  What is
slow to load is kept as arrays in the user's cache folder (``PEERGRID_CACHE_DIR``, else ``XDG_CACHE_HOME``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feeders import SCENARIO, scenario_names, scenario_path
from grid.errors import FeederError, Problem
from grid.feeder import Feeder, Floats, Ints, feeder_from_arrays, feeder_from_net, feeder_to_arrays

_CACHE_FORMAT = 3
_BORROWED_FROM = "simbench:1-LV-rural1--2-sw"

# Those whose nets have no random numbers and no generators that hold a voltage.
PANDAPOWER_FUNCTIONS = (
    "create_cigre_network_lv",
    "create_cigre_network_mv",
    "create_dickert_lv_network",
    "example_simple",
    "lv_schutterwald",
    "mv_oberrhein",
    "panda_four_load_branch",
    "simple_four_bus_system",
    "simple_mv_open_ring_net",
)
SIMBENCH_FEEDERS = (
    "1-LV-rural1--2-sw",
    "1-LV-rural2--2-sw",
    "1-LV-rural3--2-sw",
    "1-LV-semiurb4--2-sw",
    "1-LV-semiurb5--2-sw",
    "1-LV-urban6--2-sw",
    "1-MV-rural--2-sw",
)


@dataclass(frozen=True, eq=False)
class Profiles:
    """A leap year (2016, UTC) of 15-minute means from 2016-01-01T00:00Z: 35,136 steps.

    Loads count consumption as positive, static generators generation, storages charging.
    """

    load_index: Ints
    load_bus: Ints
    load_profile: npt.NDArray[np.str_]
    """The name of each load's profile in its data set; empty where the feeder has none of its own."""
    load_p_w: Floats
    """[35136, loads], W; ``load_q_var`` likewise, var."""
    load_q_var: Floats
    sgen_index: Ints
    sgen_bus: Ints
    sgen_p_w: Floats
    storage_index: Ints
    storage_bus: Ints
    storage_capacity_wh: Floats
    """Usable capacity of each storage, Wh."""
    storage_power_w: Floats
    """Largest power of each storage, both ways, W."""


def feeder_names() -> list[str]:
    """The names that work without further files."""
    return (
        scenario_names()
        + [f"simbench:{code}" for code in SIMBENCH_FEEDERS]
        + [f"pandapower:{function}" for function in PANDAPOWER_FUNCTIONS]
    )


def _unknown(name: str, reason: str) -> FeederError:
    return FeederError([Problem("feeder", "name", name, reason)])


@contextlib.contextmanager
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _simbench_net(code: str) -> Any:
    import simbench

    if code not in simbench.collect_all_simbench_codes():
        raise _unknown(f"simbench:{code}", "is no SimBench code; `peergrid feeder list` shows some")
    with _quiet():
        return simbench.get_simbench_net(code)


def _pandapower_net(call: str) -> Any:
    import pandapower.networks

    function, _, argument = call.partition(":")
    if "kerber" in function:
        reason = "draws random numbers: freeze the net with pandapower.to_json and name the file"
        raise _unknown(f"pandapower:{call}", reason)
    if function.startswith("_") or not callable(getattr(pandapower.networks, function, None)):
        raise _unknown(f"pandapower:{call}", "is no function of pandapower.networks")
    with _quiet():
        try:
            net = getattr(pandapower.networks, function)(*([argument] if argument else []))
            net = net[0] if isinstance(net, tuple) else net
            _ = net.bus, net.ext_grid
        except Exception as error:
            reason = f"made no net ({type(error).__name__}: {error})"
            raise _unknown(f"pandapower:{call}", reason) from error
    return net


def _json_net(path: Path) -> Any:
    import pandapower

    with _quiet():
        try:
            net = pandapower.from_json(str(path))
            _ = net.bus, net.ext_grid
        except Exception as error:
            reason = "is no pandapower JSON net: pandapower.to_json writes one"
            raise _unknown(str(path), reason) from error
    return net


def resolve(name: str, base: Path | None = None) -> str:
    """The name of the net itself: a folder is followed to what its scenario names."""
    if path := scenario_path(name):
        return _scenario_net(path)
    if name.startswith(("simbench:", "pandapower:")):
        return name
    path = (base or Path.cwd()) / name
    if (path / SCENARIO).is_file():
        return _scenario_net(path / SCENARIO)
    if path.suffix == ".json":
        if not path.is_file():
            raise _unknown(name, "is no file")
        return str(path)
    reason = "is no feeder: simbench:<code>, pandapower:<function>, a folder with a scenario or a JSON net"
    raise _unknown(name, f"{reason}; `peergrid feeder list` shows them")


def _scenario_net(path: Path) -> str:
    try:
        scenario = tomllib.loads(path.read_text(encoding="utf-8"))
        return resolve(str(scenario["feeder"]), path.parent)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, RecursionError) as error:
        raise _unknown(str(path), f"names no feeder ({type(error).__name__})") from None


def load_net(name: str, base: Path | None = None) -> Any:
    """The pandapower net behind a feeder's name."""
    resolved = resolve(name, base)
    kind, _, rest = resolved.partition(":")
    if kind == "simbench":
        return _simbench_net(rest)
    if kind == "pandapower":
        return _pandapower_net(rest)
    return _json_net(Path(resolved))


def cache_folder() -> Path:
    """Where loaded nets and profiles are kept; safe to delete."""
    if folder := os.environ.get("PEERGRID_CACHE_DIR"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "peergrid"


def _cached(
    kind: str, resolved: str, make: Callable[[], dict[str, npt.NDArray[Any]]]
) -> dict[str, npt.NDArray[Any]]:
    """Arrays from the cache, or made and put there; a cache that cannot be written is done without."""
    if not resolved.startswith(("simbench:", "pandapower:")):
        return make()
    versions = [version(package) for package in ("pandapower", "simbench", "peergrid")]
    origin = " ".join([str(_CACHE_FORMAT), kind, resolved, *versions])
    path = cache_folder() / f"{kind}-{hashlib.sha256(origin.encode()).hexdigest()[:24]}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError), np.load(path) as stored:
        return {key: stored[key] for key in stored.files}
    arrays = make()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        Path(file.name).replace(path)
    return arrays


def open_feeder(name: str, base: Path | None = None) -> Feeder:
    """The feeder of that name; paths are relative to ``base``, else to the working directory.

    Raises :class:`FeederError` where there is none, or it has what the model does not represent.
    """
    resolved = resolve(name, base)
    arrays = _cached(
        "feeder", resolved, lambda: feeder_to_arrays(feeder_from_net(load_net(resolved), resolved))
    )
    feeder = feeder_from_arrays(arrays)
    # Records name their feeder: a file as it was named, not where it happens to be on this machine.
    return feeder if resolved.startswith(("simbench:", "pandapower:")) else replace(feeder, name=name)


def open_net(name: str, base: Path | None = None) -> Any:
    """The pandapower net behind a feeder's name, without profiles.

    SimBench's, which take seconds to load, are kept as JSON in the user's cache folder.
    """
    import pandapower

    resolved = resolve(name, base)
    if not resolved.startswith("simbench:"):
        return load_net(resolved)

    def make() -> dict[str, npt.NDArray[Any]]:
        net = load_net(resolved)
        net.profiles = {}
        for table in [key for key, value in net.items() if getattr(value, "empty", False)]:
            del net[table]  # reading makes empty ones anyway, and takes as long for each that is written
        return {"json": np.frombuffer(pandapower.to_json(net).encode(), dtype=np.uint8)}

    with _quiet():
        return pandapower.from_json_string(_cached("net", resolved, make)["json"].tobytes().decode())


def _simbench_profiles(net: Any) -> dict[str, npt.NDArray[Any]]:
    import simbench

    with _quiet():
        values = simbench.get_absolute_values(net, profiles_instead_of_study_cases=True)

    def absolute(table: str, quantity: str) -> npt.NDArray[Any]:
        active = net[table].index[net[table].in_service.astype(bool)]
        scaling = net[table].scaling.loc[active].to_numpy(dtype=np.float64)
        profiles: Floats = values[(table, quantity)][active].to_numpy(dtype=np.float64)
        absolute_w: Floats = profiles * (scaling * 1e6)
        return absolute_w

    load = net.load[net.load.in_service.astype(bool)]
    sgen = net.sgen[net.sgen.in_service.astype(bool)]
    storage = net.storage[net.storage.in_service.astype(bool)]
    return {
        "load_index": load.index.to_numpy(dtype=np.int64),
        "load_bus": load.bus.to_numpy(dtype=np.int64),
        "load_profile": load.profile.to_numpy(dtype=np.str_),
        "load_p_w": absolute("load", "p_mw"),
        "load_q_var": absolute("load", "q_mvar"),
        "sgen_index": sgen.index.to_numpy(dtype=np.int64),
        "sgen_bus": sgen.bus.to_numpy(dtype=np.int64),
        "sgen_p_w": absolute("sgen", "p_mw"),
        "storage_index": storage.index.to_numpy(dtype=np.int64),
        "storage_bus": storage.bus.to_numpy(dtype=np.int64),
        "storage_capacity_wh": storage.max_e_mwh.to_numpy(dtype=np.float64) * 1e6,
        "storage_power_w": storage.p_mw.abs().to_numpy(dtype=np.float64) * 1e6,
    }


def _borrowed_profiles(net: Any) -> dict[str, npt.NDArray[Any]]:
    """Profiles for a net that has none: SimBench rural1's shapes, in turn, to each element's own size."""
    shapes = year_profiles(_BORROWED_FROM)

    def borrow(shape: Floats, size_w: Floats) -> Floats:
        column = np.arange(len(size_w)) % shape.shape[1]
        return np.asarray(shape[:, column] / shape.max(axis=0)[column] * size_w)

    load = net.load[net.load.in_service.astype(bool)]
    sgen = net.sgen[net.sgen.in_service.astype(bool)]
    load_w = (load.p_mw * load.scaling).to_numpy(dtype=np.float64) * 1e6
    tan_phi = np.divide(load.q_mvar, load.p_mw, out=np.zeros(len(load)), where=load.p_mw.to_numpy() != 0)
    load_p_w = borrow(shapes.load_p_w, load_w)
    empty = np.zeros(0)
    return {
        "load_index": load.index.to_numpy(dtype=np.int64),
        "load_bus": load.bus.to_numpy(dtype=np.int64),
        "load_profile": np.full(len(load), "", dtype=np.str_),
        "load_p_w": load_p_w,
        "load_q_var": load_p_w * np.asarray(tan_phi),
        "sgen_index": sgen.index.to_numpy(dtype=np.int64),
        "sgen_bus": sgen.bus.to_numpy(dtype=np.int64),
        "sgen_p_w": borrow(shapes.sgen_p_w, (sgen.p_mw * sgen.scaling).to_numpy(dtype=np.float64) * 1e6),
        "storage_index": empty.astype(np.int64),
        "storage_bus": empty.astype(np.int64),
        "storage_capacity_wh": empty,
        "storage_power_w": empty,
    }


def year_profiles(name: str, base: Path | None = None) -> Profiles:
    """The year profiles of a feeder: SimBench's own, or for other nets borrowed from SimBench."""
    resolved = resolve(name, base)

    def make() -> dict[str, npt.NDArray[Any]]:
        net = load_net(resolved)
        return _simbench_profiles(net) if resolved.startswith("simbench:") else _borrowed_profiles(net)

    arrays = _cached("profiles", resolved, make)
    for array in arrays.values():
        array.flags.writeable = False
    return Profiles(**{item.name: arrays[item.name] for item in fields(Profiles)})
