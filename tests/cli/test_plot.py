"""``peergrid clear --plot``: what the sheet shows, in each kind of file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from market.auction.clearing import clear_book
from market.auction.schedule import schedule_of
from market.cli.main import cli, run
from market.cli.plot import write_plot
from market.cli.plot_curves import curves_at_slack
from market.cli.plot_style import page_style
from tests.auction.books import book_of, order
from tests.auction.nets import binding_book, feeder_of

RURAL1 = feeder_of("rural1")
OFFERS = [
    order("a1", "ask", 7, 3000, 100_000),
    order("a2", "ask", 9, 3000, 160_000),
    order("b1", "bid", 5, 4000, 250_000),
    order("b2", "bid", 11, 1500, 120_000),
]
FIRM = [{"connection_point": "bus:6", "p_w": -4000.0}, {"connection_point": "bus:3", "p_w": 2000.0}]
MAGIC = {".svg": b"<svg", ".png": b"\x89PNG", ".pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", sorted(MAGIC))
def test_the_command_draws_the_file_that_its_suffix_names(suffix: str, tmp_path: Path) -> None:
    book, picture = tmp_path / "book.json", tmp_path / f"sheet{suffix}"
    book.write_text(book_of(OFFERS, firm=FIRM).model_dump_json(), encoding="utf-8")
    arguments = [
        "clear",
        str(book),
        "--feeder",
        "simbench:1-LV-rural1--2-sw",
        "--plot",
        str(picture),
        "--json",
    ]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["status"] == "cleared"
    assert picture.read_bytes().startswith(MAGIC[suffix])
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize("name", ["sheet.jpg", "no folder/sheet.svg"])
def test_a_file_that_cannot_be_drawn_is_refused_before_any_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["clear", "no-book.json", "--plot", str(tmp_path / name)]) == 2
    assert name in capsys.readouterr().err


def svg_of(tmp_path: Path, book: Any, feeder: Any) -> ElementTree.Element:
    path = tmp_path / "sheet.svg"
    write_plot(path, book, clear_book(book, feeder), feeder)
    return ElementTree.fromstring(path.read_text(encoding="utf-8"))


def test_every_mark_carries_its_own_colours(tmp_path: Path) -> None:
    sheet = svg_of(tmp_path, binding_book("rural1", 1), RURAL1)
    text = ElementTree.tostring(sheet, encoding="unicode")
    assert "var(" not in text
    assert "class=" not in text
    shapes = [e for e in sheet.iter() if e.tag.rpartition("}")[2] == "path"]
    assert all("stroke" in e.attrib or "fill" in e.attrib for e in shapes)


def test_both_maps_show_every_bus(tmp_path: Path) -> None:
    sheet = svg_of(tmp_path, binding_book("rural1", 1), RURAL1)
    titles = [e.text or "" for e in sheet.iter() if e.tag.endswith("title")]
    buses = [
        f"bus:{bus}: "
        for bus in RURAL1.bus_index
        if RURAL1.bus_node[RURAL1.bus_index == bus] not in RURAL1.slack
    ]
    for bus in buses:
        assert any(title.startswith(bus) and title.endswith("pu") for title in titles)
        assert any(title.startswith(bus) and title.endswith("ct/kWh") for title in titles)
    assert any("100.0 % of its limit" in title for title in titles)


def test_a_suspended_interval_is_drawn_with_what_breaks_and_what_would_relieve_it(tmp_path: Path) -> None:
    feeder = feeder_of("rural3")
    firm = [{"connection_point": "bus:120", "p_w": -250_000.0}]
    helpful = [order("battery", "ask", 120, 10_000, 350_000), order("car", "bid", 120, 5000, 200_000)]
    for offers, sections in (([], 1), (helpful, 2)):
        sheet = svg_of(tmp_path, book_of(offers, firm=firm), feeder)
        words = " ".join(e.text or "" for e in sheet.iter() if e.tag.endswith("text"))
        assert "suspended" in words
        assert "No schedule keeps every limit: at the least violation line:" in words
        assert re.search(r"Beyond their limits: line:\d+ at 13\d\.\d %, line:", words)
        assert ("With the relieving setpoints" in words) == (sections == 2)
        assert ("battery feeds in 10.00 kWh." in words) == (sections == 2)
        assert page_style().variables["--bad"] in {e.attrib.get("stroke") for e in sheet.iter()}


def test_a_suspended_interval_without_power_flow_says_so(tmp_path: Path) -> None:
    sheet = svg_of(tmp_path, book_of([], firm=[{"connection_point": "bus:7", "p_w": -1e8}]), RURAL1)
    words = " ".join(e.text or "" for e in sheet.iter() if e.tag.endswith("text"))
    assert "no power flow" in words


@pytest.mark.parametrize("local_fee", [0, 20_000])
def test_the_curves_at_the_slack_balance_at_the_energy_price(local_fee: int) -> None:
    book = book_of(OFFERS, firm=FIRM, local_fee=local_fee)
    record = clear_book(book, RURAL1)
    curves = curves_at_slack(book, record, schedule_of(book, record, RURAL1))
    assert abs(curves.demand_wh - curves.supply_wh + record.export_wh - record.import_wh) <= 3
    # Delivery factors are those of the result, its price whole µEUR/kWh: all but exact.
    assert curves.low - 20 <= curves.mean <= curves.high + 20
    assert sum(step.left_wh for step in curves.demand) == pytest.approx(1500, rel=0.02)


def test_the_net_s_own_elements_are_the_firm_energy_of_a_book_without() -> None:
    feeder = feeder_of("rural3")
    book = book_of([order("a", "ask", 7, 900, 100_000)])
    record = clear_book(book, feeder)
    schedule = schedule_of(book, record, feeder)
    assert schedule.point.slack_w == pytest.approx((record.import_wh - record.export_wh) * 4, abs=4)
    assert abs(schedule.point.p_w).sum() > 10_000


def test_the_style_sheet_says_of_each_mark_what_it_says_on_the_page() -> None:
    style = page_style()
    assert style.of("circle", frozenset({"bus", "h3"}))["fill"] == style.variables["--h3"]
    assert style.of("path", frozenset({"branch", "over"}))["stroke"] == style.variables["--bad"]
    assert style.of("text", frozenset({"label", "end"}))["text-anchor"] == "end"
    assert style.variables["--surface"] == "#ffffff", "the light scheme"
