"""What went wrong, what was asked of the market, and who its members are."""

from __future__ import annotations

from typing import get_args

from sqlalchemy import select

from market.service.store import schema
from market.service.store.alarms import AlarmKind
from market.service.store.dialects import document, in_bytes, text_of, whole_of
from market.service.store.tables.table import METER, START, Table, text, whole

_alarm = schema.alarm.c
_member = schema.member_change.c
_instruction = schema.instruction.c
_dispute = schema.dispute.c
_registered = document(_member.member)

TABLES = (
    Table(
        "alarms",
        "What went wrong with messages, meters or a part of the market; times are those of the last time.",
        (
            text("kind", ", ".join(get_args(AlarmKind))),
            text("subject", "the meter, wallet or part"),
            whole("first_at", "on the market's clock, Unix seconds"),
            whole("last_at", "on the market's clock, Unix seconds"),
            whole("count", "how often"),
            text("detail", "of the last one"),
        ),
        select(
            _alarm.kind, _alarm.subject, _alarm.first_at, _alarm.last_at, _alarm.count, _alarm.detail
        ).order_by(_alarm.last_at, in_bytes(_alarm.kind), in_bytes(_alarm.subject)),
        _alarm.last_at,
    ),
    Table(
        "member_changes",
        "Who joined, left, moved or got another meter; times are those of the first interval.",
        (
            whole("first_start", "start of the first interval, Unix seconds"),
            METER,
            text("connection_point", "where it stands from then on; none where it left", True),
            text("owner", "address of the household's wallet", True),
            whole("fuse_w", "the most it can draw, W", True),
        ),
        select(
            _member.first_start,
            _member.meter,
            text_of(_registered, "connection_point"),
            text_of(_registered, "owner"),
            whole_of(_registered, "fuse_w"),
        ).order_by(_member.first_start, in_bytes(_member.meter)),
        _member.first_start,
    ),
    Table(
        "instructions",
        "What operators asked of the market, and its answers; times are those of the asking.",
        (
            whole("id", "in the order of asking"),
            whole("given_at", "by the machine's clock, Unix seconds"),
            text("actor", "who asked"),
            text("kind", "suspend, resume, tariff, grid, member, dispute, resolve or recover"),
            text("body", "what exactly, JSON"),
            text("reason", "why"),
            whole("done_at", "when the market looked at it, on its clock", True),
            text("refusal", "why it was not carried out; empty where it was", True),
        ),
        select(
            _instruction.id,
            _instruction.given_at,
            _instruction.actor,
            _instruction.kind,
            _instruction.body,
            _instruction.reason,
            _instruction.done_at,
            _instruction.refusal,
        ).order_by(_instruction.id),
        _instruction.given_at,
    ),
    Table(
        "disputes",
        "Intervals that households contested; times are those of the intervals.",
        (
            whole("id", "in the order of opening"),
            START,
            METER,
            whole("opened_at", "on the market's clock, Unix seconds"),
            text("reason", "why"),
            whole("held_neur", "held back meanwhile: earned > 0, owed < 0, nEUR"),
            whole("closed_at", "on the market's clock, Unix seconds", True),
            text("decision", "upheld or dismissed", True),
            text("decision_reason", "why", True),
            whole("import_wh", "what the meter should have said, Wh", True),
            whole("export_wh", "what the meter should have said, Wh", True),
        ),
        select(
            _dispute.id,
            _dispute.interval_start,
            _dispute.meter,
            _dispute.opened_at,
            _dispute.reason,
            _dispute.held_neur,
            _dispute.closed_at,
            _dispute.decision,
            _dispute.decision_reason,
            _dispute.import_wh,
            _dispute.export_wh,
        ).order_by(_dispute.id),
        _dispute.interval_start,
    ),
)
