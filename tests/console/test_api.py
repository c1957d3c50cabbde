"""The API, the exports and the data frames are one thing in three forms, and errors have one shape."""

from __future__ import annotations

import io
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from pandas.testing import assert_frame_equal
from schemathesis.specs.openapi.checks import response_schema_conformance

from grid.errors import InputError
from market.accounts.merkle import Leaf, climb
from market.console.app import create_app
from market.console.errors import MEDIA_TYPE
from market.console.frames import MarketFrames
from market.console.market import Market
from market.service.store.tables import TABLES
from tests.console.conftest import Console, serving

SHAPE = {"type", "title", "status", "detail", "errors"}


def test_the_api_keeps_what_its_document_says(console: Console) -> None:
    """No answer is a server's error, errors have the one shape, everything else has its documented one."""
    schema = schemathesis.openapi.from_url(f"{console.address}/api/v1/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 2 * len(TABLES)
    for operation in operations:
        if operation.path.endswith("/events"):  # a stream without end
            continue

        @given(case=operation.as_strategy())
        @settings(
            max_examples=6,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        def keeps_it(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)
            if answer.status_code >= 400:
                assert answer.headers["content-type"][0] == MEDIA_TYPE
                assert set(answer.json()) == SHAPE
            elif answer.status_code == 200 and "json" in answer.headers["content-type"][0]:
                case.validate_response(answer, checks=[response_schema_conformance])

        keeps_it()


def rows_by_pages(console: Console, table: str, limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    address: str | None = f"{console.api}/{table}?limit={limit}"
    with console.client() as client:
        while address:
            answer = client.get(address)
            assert answer.status_code == 200, answer.text
            rows += answer.json()["rows"]
            following = answer.json()["next"]
            address = console.address + following if following else None
    return rows


@pytest.mark.parametrize("table", TABLES)
def test_pages_exports_and_frames_hold_the_same(console: Console, table: str) -> None:
    with MarketFrames(console.folder / "market.sqlite") as market:
        expected = market.table(table)
    dtypes = expected.dtypes.to_dict()
    paged = pd.DataFrame(rows_by_pages(console, table, 997), columns=list(dtypes)).astype(dtypes)
    assert_frame_equal(paged, expected)
    with console.client() as client:
        text = client.get(f"{console.api}/{table}.csv").text
        binary = client.get(f"{console.api}/{table}.parquet").content
    assert text == expected.to_csv(index=False)
    assert_frame_equal(pd.read_parquet(io.BytesIO(binary)).astype(dtypes), expected)


def test_the_tables_hold_a_ledger_that_sums_to_zero(console: Console) -> None:
    with MarketFrames(console.folder / "market.sqlite") as market:
        postings = market.table("postings")
    assert len(postings)
    assert (postings.groupby(["interval_start", "revision"]).amount_neur.sum() == 0).all()


def test_what_is_known_already_is_not_sent_again(console: Console) -> None:
    with console.client() as client:
        first = client.get(f"{console.api}/batches")
        second = client.get(f"{console.api}/batches", headers={"if-none-match": first.headers["etag"]})
    assert (second.status_code, second.content) == (304, b"")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/feeders/nowhere/trades", 404),
        ("GET", "/api/v1/feeders/NOT A NAME/trades", 422),
        ("GET", "/api/v1/nothing", 404),
        ("DELETE", "/api/v1/feeders", 405),
        ("GET", "{api}/trades?limit=0", 422),
        ("GET", "{api}/intervals/1", 404),
        ("GET", "{api}/intervals/1/verification", 404),
        ("GET", "{api}/trades.xlsx", 422),
        ("POST", "{api}/acknowledgements", 401),
    ],
)
def test_every_error_has_the_one_shape(console: Console, method: str, path: str, status: int) -> None:
    path = path.replace("{api}", f"/api/v1/feeders/{console.market}")
    answer = httpx.request(method, console.address + path, timeout=30)
    assert answer.status_code == status
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert set(answer.json()) == SHAPE
    assert answer.json()["status"] == status


def test_an_interval_verifies_over_the_api(console: Console) -> None:
    start = console.ask("SELECT MAX(interval_start) FROM clearing")[0][0]
    with console.client() as client:
        report = client.get(f"{console.api}/intervals/{start}/verification").json()
    assert report["ok"], [check for check in report["checks"] if not check["ok"]]


def test_a_households_proofs_lead_to_the_batchs_root(console: Console) -> None:
    meter = console.ask("SELECT meter FROM meter ORDER BY meter")[0][0]
    with console.client() as client:
        batches = client.get(f"{console.api}/households/{meter}/proofs").json()["batches"]
    assert batches
    for batch in batches:
        assert batch["leaves"]
        for item in batch["leaves"]:
            salt, kind, start, content = item["value"]
            leaf = Leaf(bytes.fromhex(salt[2:]), kind, start, content)
            path = [bytes.fromhex(node[2:]) for node in item["proof"]]
            assert "0x" + climb(leaf.hash(), path).hex() == batch["root"]


def test_metrics_can_be_scraped(console: Console) -> None:
    with console.client() as client:
        lines = client.get(f"{console.address}/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values[f'peergrid_intervals{{feeder="{console.market}",state="FINAL"}}']) == 6
    assert float(values[f'peergrid_market_clock_seconds{{feeder="{console.market}"}}']) > 1.4e9


def test_several_feeders_are_a_list(run_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(run_folder / "market.sqlite", tmp_path / name)
        with sqlite3.connect(tmp_path / name / "market.sqlite") as connection:
            connection.execute("UPDATE run SET value = ? WHERE key = 'feeder'", (name,))
        connection.close()
    databases = [tmp_path / name / "market.sqlite" for name in ("one", "two")]
    with serving(tmp_path / "one", databases=databases) as console, console.client() as client:
        page = client.get(console.address + "/", headers={"accept": "text/html"}).text
        assert [item["name"] for item in client.get(f"{console.address}/api/v1/feeders").json()] == [
            "one",
            "two",
        ]
        assert 'href="/f/one"' in page and 'href="/f/two"' in page
        assert client.get(f"{console.address}/f/two").status_code == 200


def test_two_databases_of_one_name_are_refused(run_folder: Path) -> None:
    with pytest.raises(InputError, match="another database's"):
        create_app([Market(run_folder / "market.sqlite"), Market(run_folder / "market.sqlite")])
