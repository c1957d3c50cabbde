"""Exports, API and data frames say the same."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from market.cli.main import run
from market.console.frames import MarketFrames
from tests.console.conftest import Console


def test_exports_are_those_of_the_console_and_of_python(console: Console, tmp_path: Path) -> None:
    database, market = console.folder / "market.sqlite", console.market
    first = console.ask("SELECT MIN(interval_start) FROM interval")[0][0]
    day = pd.Timestamp(first, unit="s").strftime("%Y-%m-%d")
    names = ("postings", "prices", "meters")
    for form in ("csv", "parquet"):
        options = ["--day", day, "--format", form, "--out", str(tmp_path)]
        assert run(["export", str(database), *names, *options]) == 0
    midnight = first // 86_400 * 86_400
    with MarketFrames(database) as frames, console.client() as client:
        for name in names:
            whole = frames.table(name, midnight, midnight + 86_400)
            period = {"since": midnight, "until": midnight + 86_400}
            served = client.get(f"{console.api}/{name}.csv", params=period).content
            assert (tmp_path / f"{market}-{name}.csv").read_bytes() == served
            read = pd.read_parquet(tmp_path / f"{market}-{name}.parquet")
            assert len(read) > 0
            pd.testing.assert_frame_equal(read, whole, check_dtype=False)


def test_everything_is_exported_in_a_span_of_time(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(run_folder / "market.sqlite")
    empty = ["--since", "2000-01-01T00:00:00Z", "--until", "2000-01-02T00:00:00Z"]
    assert run(["export", place, *empty, "--format", "parquet", "--out", str(tmp_path)]) == 0
    assert run(["export", place, "--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    files = {file.name.split("-")[-1].removesuffix(".parquet"): file for file in tmp_path.glob("*.parquet")}
    assert set(files) == set(names)
    assert len(pd.read_parquet(files["postings"])) == 0
    assert "amount_neur" in pd.read_parquet(files["postings"]).columns


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nonsense"], "TABLE: 'nonsense' is none of intervals"),
        (["--since", "yesterday"], "is no time with a zone"),
        (["--day", "2016-06-09", "--since", "2016-06-09T00:00:00Z"], "leaves nothing to"),
    ],
)
def test_what_is_asked_wrongly_is_told(
    options: list[str], words: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(run_folder / "market.sqlite"), *options]) == 2
    assert words in capsys.readouterr().err
