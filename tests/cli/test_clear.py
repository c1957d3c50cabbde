"""``peergrid clear`` and ``peergrid feeder`` on the three kinds of feeders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandapower
import pandapower.networks
import pytest

from market.auction.record import ClearingRecord
from tests.cli.conftest import Outcome, book_file, order


@pytest.fixture(scope="module")
def json_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pandapower net in a file."""
    path = tmp_path_factory.mktemp("nets") / "four.json"
    pandapower.to_json(pandapower.networks.simple_four_bus_system(), str(path))
    return path


def test_a_book_clears_to_one_json_document(peergrid: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = peergrid("clear", book_file(tmp_path), "--json")
    assert outcome.status == 0
    assert outcome.err == ""
    assert outcome.out.count("\n") == 1
    record = ClearingRecord.model_validate_json(outcome.out)
    assert record.status == "cleared"
    assert record.ac.violations == 0
    fills = {fill.order_id: fill.energy_wh for fill in record.fills}
    assert fills["b1"] == 400, "the bid is dearer than the ask"
    firm_wh = 300
    assert fills["a1"] == 400 + firm_wh + record.losses_wh, "and the ask serves all, cheaper than import"
    assert record.import_wh == record.export_wh == 0


def test_a_book_clears_to_words_for_a_reader(peergrid: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = peergrid("clear", book_file(tmp_path))
    assert outcome.status == 0
    for words in ("cleared", "kWh", "ct/kWh", "pu", "a1"):
        assert words in outcome.out


def test_the_feeder_on_the_command_line_wins(
    peergrid: Callable[..., Outcome], tmp_path: Path, json_net: Path
) -> None:
    path = book_file(tmp_path, firm=[], orders=[order(connection_point="bus:3", energy_wh=100)])
    outcome = peergrid("clear", path, "--feeder", json_net, "--json")
    assert outcome.status == 0
    assert outcome.document["feeder"] == str(json_net)


def test_firm_energy_that_breaks_a_limit_suspends_the_interval(
    peergrid: Callable[..., Outcome], tmp_path: Path
) -> None:
    path = book_file(tmp_path, firm=[{"connection_point": "bus:7", "p_w": -300_000}])
    outcome = peergrid("clear", path, "--json")
    assert outcome.status == 3
    assert outcome.document["status"] == "suspended"
    assert outcome.document["reason"]
    assert outcome.document["fills"] == []


@pytest.mark.parametrize("name", ["simbench:1-LV-rural1--2-sw", "pandapower:mv_oberrhein", "rural3-noon"])
def test_a_feeder_agrees_with_pandapower(peergrid: Callable[..., Outcome], name: str) -> None:
    outcome = peergrid("feeder", "check", name, "--json")
    assert outcome.status == 0
    assert outcome.document["power_flow"]["agrees"] is True
    assert outcome.document["buses"] > 10
    assert outcome.document["loads"] > 10


def test_a_net_in_a_file_is_checked_too(peergrid: Callable[..., Outcome], json_net: Path) -> None:
    outcome = peergrid("feeder", "check", json_net)
    assert outcome.status == 0
    assert "agrees" in outcome.out


def test_listed_feeders_can_be_named(peergrid: Callable[..., Outcome]) -> None:
    names = peergrid("feeder", "list", "--json").document["feeders"]
    assert "rural3-noon" in names
    assert "simbench:1-LV-rural3--2-sw" in names
    assert set(peergrid("feeder", "list").out.split()) >= set(names)


def test_help_names_every_command(peergrid: Callable[..., Outcome]) -> None:
    outcome = peergrid("--help")
    assert outcome.status == 0
    for command in ("clear", "demo", "feeder"):
        assert command in outcome.out
        assert peergrid(command, "--help").status == 0
