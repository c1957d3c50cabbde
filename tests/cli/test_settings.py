"""Where settings come from, and which source wins."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from feeders import scenario_names, scenario_path
from grid.errors import InputError
from market.cli.settings import Settings, date_from, read_settings, slug


def test_a_later_source_wins(tmp_path: Path) -> None:
    path = tmp_path / "village" / "scenario.toml"
    path.parent.mkdir()
    path.write_text('feeder = "simbench:1-LV-rural1--2-sw"\ndate = 2016-05-01\nseed = 2\nintervals = 8\n')
    only_file = read_settings(None, path, {}, {})
    assert (only_file.seed, only_file.intervals, only_file.name) == (2, 8, "village")
    with_environment = read_settings(None, path, {"PEERGRID_SEED": "3", "PEERGRID_DEBUG": "1"}, {})
    assert (with_environment.seed, with_environment.intervals) == (3, 8)
    with_flag = read_settings(None, path, {"PEERGRID_SEED": "3"}, {"seed": 4})
    assert (with_flag.seed, with_flag.intervals) == (4, 8)


def test_the_environment_reaches_every_table() -> None:
    settings = read_settings(
        None,
        None,
        {
            "PEERGRID_MARKET__SETTLE_EVERY": "day",
            "PEERGRID_MARKET__LIMITS__V_MAX_PU": "1.07",
            "PEERGRID_HOUSEHOLDS__EV_SHARE": "0.25",
            "PEERGRID_DATE": "2016-07-01",
        },
        {},
    )
    assert settings.market.settle_every == "day"
    assert settings.market.limits.v_max_pu == 1.07
    assert settings.market.limits.v_min_pu == 0.98, "what it does not name stays as the scenario has it"
    assert settings.households.ev_share == 0.25
    assert settings.date == dt.date(2016, 7, 1)


@pytest.mark.parametrize("name", scenario_names())
def test_shipped_scenarios_are_complete_and_say_where_they_come_from(name: str) -> None:
    path = scenario_path(name)
    assert path is not None
    assert read_settings(name, None, {}, {}).name == name
    readme = (path.parent / "README.md").read_text(encoding="utf-8")
    assert "Source and licence" in readme


def test_any_feeder_has_default_settings() -> None:
    settings = read_settings("simbench:1-LV-rural1--2-sw", None, {}, {})
    assert settings.feeder == "simbench:1-LV-rural1--2-sw"
    assert settings.name == "simbench-1-lv-rural1-2-sw"


def test_every_problem_names_the_source_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text('feeder = "x"\ndate = 2016-05-01\ncolour = "red"\n[market]\npatience_s = "long"\n')
    with pytest.raises(InputError) as caught:
        read_settings(None, path, {"PEERGRID_SEED": "many"}, {"households": {"pv_scale": -1.0}})
    told = {problem.field: (problem.source, problem.value) for problem in caught.value.problems}
    assert told == {
        "colour": (str(path), "red"),
        "market.patience_s": (str(path), "long"),
        "seed": ("the environment", "many"),
        "households.pv_scale": ("the command line", -1.0),
    }


def test_settings_survive_their_own_file() -> None:
    settings = read_settings(None, None, {}, {})
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("name", ["simbench:1-LV-rural3--2-sw", "nets/My Net.json", "x" * 200, "ÄÖ-ü1"])
def test_a_slug_is_what_topics_allow(name: str) -> None:
    assert 0 < len(slug(name)) <= 63
    assert set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert slug(name)[0] != "-"


def test_a_date_that_is_none_is_left_for_the_model_to_refuse() -> None:
    assert date_from("2016-06-10") == dt.date(2016, 6, 10)
    assert date_from("tomorrow") == "tomorrow"
