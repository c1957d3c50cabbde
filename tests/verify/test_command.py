"""``peergrid verify``: exit status, the JSON report, and plain errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from market.auction.clearing import clear_book
from market.cli.main import run
from tests.auction.books import book_of, order
from tests.verify.records import KERBER, document_of, feeder_of


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A record and its book."""
    book = book_of([order("a", "ask", 7, 900, 90_000), order("b", "bid", 8, 500, 250_000)], firm=[])
    record = document_of(clear_book(book, feeder_of(KERBER)))
    record_path, book_path = tmp_path / "record.json", tmp_path / "book.json"
    record_path.write_text(json.dumps(record))
    book_path.write_text(json.dumps({**json.loads(book.model_dump_json()), "feeder": KERBER}))
    return record_path, book_path


def test_a_sound_record_ends_with_zero_and_says_what_that_proves(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", *map(str, files)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "feasible and first-order optimal" in said
    assert "do not prove that the book is complete" in said


def test_the_json_report_is_one_document_with_every_subject(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", *map(str, files), "--json", "--feeder", KERBER]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert {check["subject"] for check in report["checks"]} == {
        "format", "order limits", "prices", "ties", "balance",
        "optimality", "AC feasibility", "AC complementarity",
    }  # fmt: skip
    for check in report["checks"]:
        assert check["ok"] and check["measured"] <= check["tolerance"] and check["says"]
    assert report["proves"] and report["does_not_prove"]


def test_a_record_that_does_not_hold_ends_with_one(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(files[0].read_text())
    record["losses_wh"] += 1
    files[0].write_text(json.dumps(record))
    assert run(["verify", *map(str, files)]) == 1
    assert "out of balance" in capsys.readouterr().out


def test_bad_input_ends_with_two_and_names_file_and_field(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    record, book = files
    broken = record.with_name("broken.json")
    good = json.loads(record.read_text())
    for content, message in (
        ("{", "no JSON document"),
        ('{"import_wh": NaN}', "NaN"),
        (json.dumps({**good, "import_wh": "12"}), "import_wh: '12'"),
        (json.dumps({**good, "secret": 1}), "secret"),
    ):
        broken.write_text(content)
        assert run(["verify", str(broken), str(book)]) == 2
        error = capsys.readouterr().err
        assert str(broken) in error
        assert message in error
    assert run(["verify", str(record), str(book.with_name("none.json"))]) == 2
    assert run(["verify", str(record), str(book), "--feeder", "nowhere"]) == 2
    elsewhere = json.loads(book.read_text())
    elsewhere["orders"][0]["connection_point"] = "bus:9999"
    broken.write_text(json.dumps(elsewhere))
    assert run(["verify", str(record), str(broken)]) == 2
    assert "bus:9999" in capsys.readouterr().err
