"""What a market's database holds, as flat tables: one definition for API, exports and data frames.

Times are Unix seconds, energies Wh, prices µEUR/kWh, ledger money nEUR, chain money µEUR. A table with a time
is read between ``since`` (included) and ``until`` (left out).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, func, select

from market.service.store import schema
from market.service.store.dialects import (
    document,
    in_bytes,
    items_of,
    number_of,
    positive,
    text_of,
    total,
    whole_of,
)

Type = Literal["integer", "number", "text"]


@dataclass(frozen=True)
class Column:
    name: str
    type: Type
    says: str
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """``query`` has a column for each of ``columns``, and a fixed order; ``time`` is what it is read by."""

    name: str
    says: str
    columns: Sequence[Column]
    query: Select[Any]
    time: ColumnElement[int] | None = None

    @property
    def timed(self) -> bool:
        return self.time is not None

    def rows(
        self, connection: Connection, since: int, until: int, limit: int | None = None, offset: int = 0
    ) -> list[tuple[Any, ...]]:
        """Rows in a fixed order; ``limit`` None is all of them."""
        found = connection.execute(self._between(since, until).limit(limit).offset(offset))
        return [tuple(row) for row in found]

    def parts(
        self, connection: Connection, since: int, until: int, rows_max: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """The same rows, some at a time."""
        some = {"yield_per": rows_max}
        for part in connection.execute(self._between(since, until), execution_options=some).partitions():
            yield [tuple(row) for row in part]

    def _between(self, since: int, until: int) -> Select[Any]:
        if self.time is None:
            return self.query
        return self.query.where(self.time >= since, self.time < until)


def _int(name: str, says: str, optional: bool = False) -> Column:
    return Column(name, "integer", says, optional)


def _number(name: str, says: str, optional: bool = False) -> Column:
    return Column(name, "number", says, optional)


def _text(name: str, says: str, optional: bool = False) -> Column:
    return Column(name, "text", says, optional)


_START = _int("interval_start", "start of the interval, Unix seconds")
_METER = _text("meter", "address of the meter's key")

_TARIFF = ("import_price", "export_price", "local_fee", "import_fees", "floor", "cap")
_PRICES = {"import": "import_price", "export": "export_price", "local": "local_fee"}
_PARTS = ("energy", "network", "levies", "vat")

_interval, _clearing, _transition = schema.interval.c, schema.clearing.c, schema.transition.c
_order, _award, _reading, _metered = schema.order.c, schema.award.c, schema.reading.c, schema.metered.c
_posting, _batch, _position, _alarm = schema.posting.c, schema.batch.c, schema.position.c, schema.alarm.c
_member, _instruction, _dispute = schema.member_change.c, schema.instruction.c, schema.dispute.c
_books, _meter, _presence = schema.chain_books.c, schema.meter.c, schema.meter_presence.c
_account, _balance = schema.account.c, schema.balance.c
_record, _delivered = document(_clearing.record), document(_clearing.delivered)
_tariff, _registered = document(_interval.tariff), document(_member.member)


def _in_record(member: str, *fields: tuple[str, Any]) -> Select[Any]:
    """Rows of a list inside the clearing record: the members of its items, each with how it is read."""
    item = items_of(_clearing.record, member)
    read = [how(item.c.value, name) for name, how in fields]
    return select(_clearing.interval_start, *read).order_by(_clearing.interval_start, item.c.id)


_ALL = (
    Table(
        "intervals",
        "Intervals with their state and what they came to.",
        (
            _START,
            _int("minutes", "length, minutes"),
            _int("opens_at", "gate opening, Unix seconds"),
            _int("closes_at", "gate closure, Unix seconds"),
            _text("state", "OPEN, CLOSED, CLEARED, SUSPENDED, METERED, SETTLED, FINAL or DISPUTED"),
            _int("incomplete", "meters without readings yet"),
            _int("revision", "adjustments so far"),
            _number("welfare_eur", "welfare of the clearing, EUR", True),
            _int("import_wh", "bought from the retailer, Wh", True),
            _int("export_wh", "sold to the retailer, Wh", True),
            _int("losses_wh", "losses, Wh", True),
            _int("violations", "limits that the schedule breaks", True),
            _int("metered_violations", "limits that the metered energy broke", True),
            _text("root", "hash of the record, hex", True),
        ),
        select(
            _interval.interval_start,
            _interval.minutes,
            _interval.opens_at,
            _interval.closes_at,
            _interval.state,
            _interval.incomplete,
            _interval.revision,
            number_of(_record, "welfare_eur"),
            whole_of(_record, "import_wh"),
            whole_of(_record, "export_wh"),
            whole_of(_record, "losses_wh"),
            whole_of(_record, "ac", "violations"),
            whole_of(_delivered, "violations"),
            _clearing.root,
        )
        .join_from(schema.interval, schema.clearing, isouter=True)
        .order_by(_interval.interval_start),
        _interval.interval_start,
    ),
    Table(
        "transitions",
        "Every change of state of every interval.",
        (
            _START,
            _int("number", "0 for the first"),
            _text("state", "the new state"),
            _int("at", "on the market's clock, Unix seconds"),
            _text("reason", "why, where there is something to say"),
        ),
        select(
            _transition.interval_start,
            _transition.number,
            _transition.state,
            _transition.at,
            _transition.reason,
        ).order_by(_transition.interval_start, _transition.number),
        _transition.interval_start,
    ),
    Table(
        "fills",
        "What orders got.",
        (
            _START,
            _text("order_id", "the meter and the step's index"),
            _int("energy_wh", "Wh"),
            _int("price", "paid or earned, fees included, µEUR/kWh"),
        ),
        _in_record("fills", ("order_id", text_of), ("energy_wh", whole_of), ("price", whole_of)),
        _clearing.interval_start,
    ),
    Table(
        "trades",
        "Energy from sellers to buyers.",
        (
            _START,
            _text("buy", "buyer: order, firm:<connection point>, retailer or network"),
            _text("sell", "seller, named likewise"),
            _int("energy_wh", "Wh"),
            _int("buy_price", "µEUR/kWh"),
            _int("sell_price", "µEUR/kWh"),
        ),
        _in_record(
            "trades",
            ("buy", text_of),
            ("sell", text_of),
            ("energy_wh", whole_of),
            ("buy_price", whole_of),
            ("sell_price", whole_of),
        ),
        _clearing.interval_start,
    ),
    Table(
        "prices",
        "The price of every bus (DLMP) and its parts, which add up to it.",
        (
            _START,
            _int("bus", "index of the bus"),
            _int("price", "µEUR/kWh"),
            _int("energy", "µEUR/kWh"),
            _int("losses", "µEUR/kWh"),
            _int("congestion", "µEUR/kWh"),
            _int("voltage", "µEUR/kWh"),
            _int("price_q", "of reactive energy, µEUR/kvarh"),
        ),
        _in_record(
            "prices",
            *(
                (name, whole_of)
                for name in ("bus", "price", "energy", "losses", "congestion", "voltage", "price_q")
            ),
        ),
        _clearing.interval_start,
    ),
    Table(
        "binding",
        "Limits that bound, with their shadow prices.",
        (
            _START,
            _text("element", "line, transformer or bus"),
            _text("side", "end of a branch", True),
            _text("kind", "current, v_min or v_max"),
            _number("loading_percent", "of a current", True),
            _number("v_pu", "of a voltage", True),
            _number("shadow_price", "EUR/MWh of rated power; EUR/h per 0.01 pu of voltage"),
        ),
        _in_record(
            "binding",
            ("element", text_of),
            ("side", text_of),
            ("kind", text_of),
            ("loading_percent", number_of),
            ("v_pu", number_of),
            ("shadow_price_eur_per_mwh", number_of),
        ),
        _clearing.interval_start,
    ),
    Table(
        "orders",
        "Accepted versions of orders, as signed.",
        (
            _START,
            _METER,
            _int("version", "the highest one counts"),
            _int("received_at", "on the market's clock, Unix seconds"),
            _text("body", "the signed message, JSON"),
        ),
        select(_order.interval_start, _order.meter, _order.version, _order.received_at, _order.body).order_by(
            _order.interval_start, in_bytes(_order.meter), _order.version
        ),
        _order.interval_start,
    ),
    Table(
        "awards",
        "What each meter was awarded.",
        (
            _START,
            _METER,
            _int("net_wh", "into the grid, Wh"),
            _int("amount_neur", "earned, nEUR"),
            _text("body", "the signed message, JSON"),
        ),
        select(_award.interval_start, _award.meter, _award.net_wh, _award.amount_neur, _award.body).order_by(
            _award.interval_start, in_bytes(_award.meter)
        ),
        _award.interval_start,
    ),
    Table(
        "readings",
        "Cumulative registers as meters sent them; times are those of the reading.",
        (
            _METER,
            _int("epoch", "changes with a reset or replacement"),
            _int("seq", "number of the reading"),
            _int("taken_at", "Unix seconds"),
            _int("import_wh", "register, Wh"),
            _int("export_wh", "register, Wh"),
            _int("power_w", "at that moment, W"),
            _int("quality", "0 is measured"),
            _int("received_at", "on the market's clock, Unix seconds"),
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
            _START,
            _int("revision", "the highest one counts"),
            _METER,
            _int("import_wh", "Wh", True),
            _int("export_wh", "Wh", True),
            _text("flag", "measured, interpolated, estimated or missing"),
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
    Table(
        "postings",
        "The ledger: each interval's postings sum to zero.",
        (
            _START,
            _int("revision", "0 is the settlement, above are adjustments"),
            _text("account", "household:<meter>, retailer, network, imbalance or rounding"),
            _text("kind", "what it is for"),
            _int("amount_neur", "earned, nEUR"),
            _int("energy_wh", "into the grid or sold, Wh"),
            _int("batch", "the batch that brings it to the chain"),
        ),
        select(
            _posting.interval_start,
            _posting.revision,
            _posting.account,
            _posting.kind,
            _posting.amount_neur,
            _posting.energy_wh,
            _posting.batch,
        ).order_by(
            _posting.interval_start, _posting.revision, in_bytes(_posting.account), in_bytes(_posting.kind)
        ),
        _posting.interval_start,
    ),
    Table(
        "batches",
        "Settlement batches; times are those of their making.",
        (
            _int("sequence", "number of the batch"),
            _text("state", "PENDING or FINAL"),
            _int("made_at", "on the market's clock, Unix seconds"),
            _text("root", "what the chain commits to, hex"),
            _text("tx_hash", "transaction, hex", True),
            _int("gas", "gas used", True),
            _int("positions", "accounts that change"),
            _int("volume_ueur", "what moves, µEUR"),
        ),
        select(
            _batch.sequence,
            _batch.state,
            _batch.made_at,
            _batch.root,
            _batch.tx_hash,
            _batch.gas,
            func.count(_position.account),
            func.coalesce(total(positive(_position.amount_ueur)), 0),
        )
        .join_from(schema.batch, schema.position, isouter=True)
        .group_by(_batch.sequence)
        .order_by(_batch.sequence),
        _batch.made_at,
    ),
    Table(
        "alarms",
        "What went wrong with messages, the solver or the chain; times are those of the last time.",
        (
            _text("kind", "contradiction, flood, reading, solver, chain or clock"),
            _text("subject", "the meter"),
            _int("first_at", "on the market's clock, Unix seconds"),
            _int("last_at", "on the market's clock, Unix seconds"),
            _int("count", "how often"),
            _text("detail", "of the last one"),
        ),
        select(
            _alarm.kind, _alarm.subject, _alarm.first_at, _alarm.last_at, _alarm.count, _alarm.detail
        ).order_by(_alarm.last_at, in_bytes(_alarm.kind), in_bytes(_alarm.subject)),
        _alarm.last_at,
    ),
    Table(
        "tariffs",
        "The prices of every interval, and what they are made of where the tariff says.",
        (
            _START,
            _int("import_price", "what the retailer charges, all in, µEUR/kWh"),
            _int("export_price", "what the retailer pays, µEUR/kWh"),
            _int("local_fee", "for the network, on energy from inside the feeder, µEUR/kWh"),
            _int("import_fees", "network charges and levies inside import_price, µEUR/kWh"),
            _int("floor", "no limit price may be below, µEUR/kWh"),
            _int("cap", "no limit price may be above, µEUR/kWh"),
            *(
                _int(f"{price}_{part}", f"{part} in {name}, µEUR/kWh", True)
                for price, name in _PRICES.items()
                for part in _PARTS
            ),
        ),
        select(
            _interval.interval_start,
            *(whole_of(_tariff, name) for name in _TARIFF),
            *(whole_of(_tariff, f"{price}_parts", part) for price in _PRICES for part in _PARTS),
        ).order_by(_interval.interval_start),
        _interval.interval_start,
    ),
    Table(
        "member_changes",
        "Who joined, left, moved or got another meter; times are those of the first interval.",
        (
            _int("first_start", "start of the first interval, Unix seconds"),
            _METER,
            _text("connection_point", "where it stands from then on; none where it left", True),
            _text("owner", "address of the household's wallet", True),
            _int("fuse_w", "the most it can draw, W", True),
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
            _int("id", "in the order of asking"),
            _int("given_at", "by the machine's clock, Unix seconds"),
            _text("actor", "who asked"),
            _text("kind", "suspend, resume, tariff, grid, member, dispute or resolve"),
            _text("body", "what exactly, JSON"),
            _text("reason", "why"),
            _int("done_at", "when the market looked at it, on its clock", True),
            _text("refusal", "why it was not carried out; empty where it was", True),
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
            _int("id", "in the order of opening"),
            _START,
            _METER,
            _int("opened_at", "on the market's clock, Unix seconds"),
            _text("reason", "why"),
            _int("held_neur", "held back meanwhile: earned > 0, owed < 0, nEUR"),
            _int("closed_at", "on the market's clock, Unix seconds", True),
            _text("decision", "upheld or dismissed", True),
            _text("decision_reason", "why", True),
            _int("import_wh", "what the meter should have said, Wh", True),
            _int("export_wh", "what the meter should have said, Wh", True),
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
    Table(
        "chain_books",
        "What the market's contracts held; a row for every change, by the market's clock.",
        (
            _int("at", "on the market's clock, Unix seconds"),
            _int("block", "the newest one then"),
            _int("supply_ueur", "tokens, µEUR"),
            _int("deposits_ueur", "came in less what went out, µEUR"),
            _int("backing_ueur", "stablecoin that the escrow holds, µEUR"),
            _int("guarantee_ueur", "what stands in for debtors, µEUR"),
            _int("withdrawals_ueur", "announced and not paid, µEUR"),
            _int("paused", "1 while the escrow is paused"),
            _text("accounts", "debts and withdrawals by address, JSON"),
        ),
        select(
            _books.at,
            _books.block,
            _books.supply_ueur,
            _books.deposits_ueur,
            _books.backing_ueur,
            _books.guarantee_ueur,
            _books.withdrawals_ueur,
            _books.paused,
            _books.accounts,
        ).order_by(_books.at),
        _books.at,
    ),
    Table(
        "meters",
        "Registered meters.",
        (
            _METER,
            _text("owner", "address of the household's wallet"),
            _text("connection_point", "where it stands"),
            _int("bus", "index of the bus"),
            _int("fuse_w", "the most it can draw, W"),
            _text("software", "what it says that it is", True),
            _int("online", "1 or 0, as it said last", True),
            _int("forged", "messages on its topics that it had not signed"),
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
        "accounts",
        "Accounts in the ledger and on the chain.",
        (
            _text("account", "household:<meter>, retailer, network, imbalance or rounding"),
            _text("address", "its first holder on the chain; later ones are in member_changes"),
            _int("deposit_ueur", "µEUR"),
            _int("ledger_neur", "balance without the deposit, nEUR"),
            _int("settled_ueur", "brought to the chain, µEUR"),
        ),
        select(
            _account.account,
            _account.address,
            _account.deposit_ueur,
            func.coalesce(_balance.ledger_neur, 0),
            func.coalesce(_balance.settled_ueur, 0),
        )
        .join_from(schema.account, schema.balance, isouter=True)
        .order_by(in_bytes(_account.account)),
    ),
)

TABLES = {table.name: table for table in _ALL}
