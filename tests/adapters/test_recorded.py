"""Every recorded payload says what its device meant, to the Wh, through the pure parts."""

from __future__ import annotations

import contextlib

import pytest

from meters.adapters import fold
from meters.adapters.interface import PayloadError
from tests.adapters.cases import NAMES, case

NOW = 1_800_000_000.0


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_payload_says_what_its_device_meant(name: str) -> None:
    recorded = case(name)
    assert recorded.source
    assert len(recorded.said) == len(recorded.messages)
    device = recorded.device
    reader, known = device.reader(), fold.Known()
    for at, (message, said) in enumerate(zip(recorded.messages, recorded.said, strict=True)):
        with contextlib.suppress(PayloadError):
            known = fold.learn(
                known, reader.hear(message.topic, message.payload), NOW + 60 * at, device.period_s
            )
        sample = fold.counted(known, reader, invert=False)
        if said is None:
            assert sample is None
            continue
        assert sample is not None
        step_wh = max(sample.imported.step_wh, sample.exported.step_wh)
        power_w = fold.export_w(known, invert=False)
        assert [sample.imported.wh, sample.exported.wh, power_w, step_wh] == said
