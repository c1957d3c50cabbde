"""Statements of a stored run: whoever adds up the files gets the ledger."""

from __future__ import annotations

import csv
import shutil
import sqlite3
from pathlib import Path

import pytest

from market.cli.main import run


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_files_add_up_to_the_ledger(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "statements"
    assert run(["statement", str(run_folder / "market.sqlite"), "--out", str(out)]) == 0
    with sqlite3.connect(run_folder / "market.sqlite") as connection:
        ledger = dict(connection.execute("SELECT account, SUM(amount_neur) FROM posting GROUP BY account"))
    (everything,) = out.glob("all-*.csv")
    totals = {row["account"]: int(row["closing_neur"]) for row in read(everything)}
    assert {account: neur for account, neur in totals.items() if account in ledger} == ledger
    assert sum(totals.values()) == 0
    sheets = sorted(set(out.glob("*.csv")) - {everything})
    assert len(sheets) == len(totals) == len(list(out.glob("*.html")))
    for sheet in sheets:
        *lines, total = read(sheet)
        for column in ("energy_neur", "network_neur", "levies_neur", "vat_neur", "amount_neur"):
            assert sum(int(line[column]) for line in lines) == int(total[column])
        assert int(total["amount_neur"]) == totals[total["account"]]
    page = (out / sheets[0].with_suffix(".html").name).read_text()
    assert "add up" in page.lower() or "adds up" in page.lower()
    assert "http" not in page, "nothing from elsewhere"


def test_a_ledger_that_does_not_agree_is_told_and_nothing_is_written(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "market.sqlite"
    shutil.copy(run_folder / "market.sqlite", path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE balance SET ledger_neur = ledger_neur + 1 WHERE account = 'retailer'")
    connection.close()
    assert run(["statement", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "are not the balance of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--month", "2016-13"], "--month: '2016-13' is no month"),
        (["--zone", "Nowhere"], "is no time zone"),
        (["--account", "load:999"], "is no account, meter or connection point"),
        (["--feeder", "other"], "is none of"),
    ],
)
def test_what_is_asked_wrongly_is_told(
    options: list[str], words: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(run_folder / "market.sqlite")
    assert run(["statement", place, "--out", str(tmp_path / "out"), *options]) == 2
    assert words in capsys.readouterr().err
