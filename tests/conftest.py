"""What tests may ask of the machine, and what happens where it lacks that.

``@pytest.mark.needs("mosquitto")`` marks a test that talks to a real program. Where the program is not
installed the test is skipped and the end of the run says how to get it; with ``PEERGRID_TEST_ALL=1`` the
test fails instead. ``@pytest.mark.long`` marks full counts that run only with ``PEERGRID_TEST_LONG=1``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import oracles

FOUNDRY = Path(__file__).parents[1] / "contracts" / "node_modules" / "@foundry-rs"
FOLDERS = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
POSTGRES = Path("/usr/lib/postgresql").glob("*/bin")  # where Debian puts its programs
SEARCH_PATH = os.pathsep.join([*FOLDERS, *map(str, FOUNDRY.glob("*/bin")), *map(str, POSTGRES)])

HOW_TO_GET = {
    "mosquitto": "apt-get install mosquitto",
    "mosquitto_pub": "apt-get install mosquitto-clients",
    "node": "apt-get install nodejs",
    "npm": "apt-get install npm",
    "postgres": "apt-get install postgresql",
    "chromium": "apt-get install chromium",
    "anvil": "contracts/forge.sh",
    "gcc": "apt-get install gcc libc6-dev",
    "libmodbus": "apt-get install libmodbus-dev",
}
LIBRARIES = {"libmodbus": Path("/usr/include/modbus/modbus.h")}


def lacking_parts(item: pytest.Item) -> list[str]:
    """The programs that ``item`` asks for and this machine does not have."""
    parts = [part for mark in item.iter_markers("needs") for part in mark.args]
    unknown = set(parts) - set(HOW_TO_GET)
    if unknown:
        raise pytest.UsageError(f"{item.nodeid} needs {sorted(unknown)}, unknown to tests/conftest.py")
    return [part for part in parts if not is_here(part)]


def is_here(part: str) -> bool:
    if part in LIBRARIES:
        return LIBRARIES[part].exists()
    return shutil.which(part, path=SEARCH_PATH) is not None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): talks to real programs; skipped without them")
    config.addinivalue_line("markers", "long: full counts, run by make test-long")
    # How long an example takes says how busy the machine is.
    settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("PEERGRID_TEST_LONG") == "1":
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_runtest_setup(item: pytest.Item) -> None:
    lacking = lacking_parts(item)
    if not lacking:
        return
    item.user_properties.append(("lacking", ",".join(lacking)))
    reason = f"needs {', '.join(lacking)}"
    if os.environ.get("PEERGRID_TEST_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = terminalreporter.stats.get("passed", [])
    if found := oracles.figures_of(item for report in passed for item in report.user_properties):
        terminalreporter.section("against oracles")
        terminalreporter.write_line(oracles.tables(found))
        if path := os.environ.get("PEERGRID_ORACLES"):
            oracles.write(Path(path), found)
    left_out: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        for name, value in report.user_properties:
            if name == "lacking":
                for part in str(value).split(","):
                    left_out[part] = left_out.get(part, 0) + 1
    if not left_out:
        return
    terminalreporter.section("left out on this machine")
    for part, count in sorted(left_out.items()):
        tests = "1 test" if count == 1 else f"{count} tests"
        terminalreporter.write_line(f"{part}: {tests} left out; to run them: {HOW_TO_GET[part]}")
