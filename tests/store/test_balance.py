"""Running balances of an older database are added up when it is upgraded."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import insert

from market.service.store import Store, money, schema
from market.service.store.database import open_engine
from market.service.store.migrations import upgrade_to

ACCOUNTS = ("household:0x1", "household:0x2", "rounding")


def test_an_upgrade_adds_up_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    engine, _ = open_engine(path)
    with engine.begin() as tx:
        upgrade_to(tx, "base", "4")
        tx.execute(insert(schema.run), {"key": "schema_version", "value": "4"})
        for account in ACCOUNTS:
            tx.execute(
                insert(schema.account), {"account": account, "address": f"0x{account}", "deposit_ueur": 0}
            )
        interval = {"interval_start": 0, "minutes": 15, "opens_at": 0, "closes_at": 0}
        tx.execute(insert(schema.interval), {**interval, "state": "SETTLED", "tariff": "{}"})
        tx.execute(insert(schema.batch), {"sequence": 0, "root": "0x", "state": "FINAL", "made_at": 900})
        for account, kind, amount in (
            (ACCOUNTS[0], "award", 5_000),
            (ACCOUNTS[0], "firm", 2_500),
            (ACCOUNTS[1], "award", -7_500),
        ):
            tx.exec_driver_sql("INSERT INTO posting VALUES (0, 0, ?, ?, ?, 0, 0)", (account, kind, amount))
        for account, amount in ((ACCOUNTS[0], 7), (ACCOUNTS[1], -8), (ACCOUNTS[2], 1)):
            tx.exec_driver_sql("INSERT INTO position VALUES (0, ?, ?)", (account, amount))
    engine.dispose()
    with Store(path, {}, upgrade=True) as store, store.reading() as connection:
        assert money.ledger_neur(connection) == dict(zip(ACCOUNTS, (7_500, -7_500, 0), strict=True))
        assert money.settled_ueur(connection) == dict(zip(ACCOUNTS, (7, -8, 1), strict=True))
