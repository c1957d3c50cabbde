"""Meters: who they are, what they read, and the energy of each interval."""

from __future__ import annotations

from sqlalchemy import func, select

from market.service.store import schema
from market.service.store.dialects import in_bytes
from market.service.store.tables.table import METER, START, Table, text, whole

_reading = schema.reading.c
_metered = schema.metered.c
_meter = schema.meter.c
_presence = schema.meter_presence.c

TABLES = (
    Table(
        "meters",
        "Registered meters.",
        (
            METER,
            text("owner", "address of the household's wallet"),
            text("connection_point", "where it stands"),
            whole("bus", "index of the bus"),
            whole("fuse_w", "the most it can draw, W"),
            text("software", "what it says that it is", True),
            whole("online", "1 or 0, as it said last", True),
            whole("forged", "messages on its topics that it had not signed"),
        ),
        select(
            _meter.meter,
            _meter.owner,
            _meter.connection_point,
            _meter.bus,
            _meter.fuse_w,
            _presence.software,
            _presence.online,
            func.coalesce(_presence.forged, 0),
        )
        .join_from(schema.meter, schema.meter_presence, isouter=True)
        .order_by(in_bytes(_meter.meter)),
    ),
    Table(
        "readings",
        "Cumulative registers as meters sent them; times are those of the reading.",
        (
            METER,
            whole("epoch", "changes with a reset or replacement"),
            whole("seq", "number of the reading"),
            whole("taken_at", "Unix seconds"),
            whole("import_wh", "register, Wh"),
            whole("export_wh", "register, Wh"),
            whole("power_w", "at that moment, W"),
            whole("quality", "0 is measured"),
            whole("received_at", "on the market's clock, Unix seconds"),
        ),
        select(
            _reading.meter,
            _reading.epoch,
            _reading.seq,
            _reading.taken_at,
            _reading.import_wh,
            _reading.export_wh,
            _reading.power_w,
            _reading.quality,
            _reading.received_at,
        ).order_by(_reading.taken_at, in_bytes(_reading.meter), _reading.epoch, _reading.seq),
        _reading.taken_at,
    ),
    Table(
        "metered",
        "Energy of each interval by meter, every revision.",
        (
            START,
            whole("revision", "the highest one counts"),
            METER,
            whole("import_wh", "Wh", True),
            whole("export_wh", "Wh", True),
            text("flag", "measured, interpolated, estimated or missing"),
        ),
        select(
            _metered.interval_start,
            _metered.revision,
            _metered.meter,
            _metered.import_wh,
            _metered.export_wh,
            _metered.flag,
        ).order_by(_metered.interval_start, _metered.revision, in_bytes(_metered.meter)),
        _metered.interval_start,
    ),
)
