"""Makes the file of this schema that ``test_golden.py`` opens once there is a newer one.

``python -m tests.store.make_golden``, with the code whose ``SCHEMA_VERSION`` it is, runs one for a minute.
"""

from __future__ import annotations

import lzma
import signal
import tempfile
import time
from pathlib import Path

from market.cli.backup import copied
from market.service.store.schema import SCHEMA_VERSION
from tests.service.process import NAME, Service, configuration, is_event, query

CASES = Path(__file__).parents[1] / "cases" / "store"
STATES = "SELECT state, COUNT(*) FROM interval GROUP BY state"
EIGHT_INTERVALS = {"CLEARED": 2, "FINAL": 6}


def make(folder: Path, target: Path) -> None:
    config = configuration(folder / "market.toml")
    database = folder / "market" / NAME / "market.sqlite"
    service = Service(config, "market")
    try:
        service.until(is_event("settled"))
        while (now := dict(query(database, STATES))) != EIGHT_INTERVALS:
            assert now.get("FINAL", 0) <= EIGHT_INTERVALS["FINAL"], "the moment was missed; run it again"
            service.assert_lives()
            time.sleep(0.1)
        service.send(signal.SIGTERM)
        assert service.ended() == 0, service.words()
    finally:
        service.kill()
    target.write_bytes(lzma.compress(copied(database, folder / "market.sqlite").read_bytes()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), CASES / f"v{SCHEMA_VERSION}.sqlite.xz")
