"""What a market's database holds, as flat tables: one definition for API, exports and data frames.

Times are Unix seconds, energies Wh, prices µEUR/kWh, ledger money nEUR, chain money µEUR. A table with a time
is read between ``since`` (included) and ``until`` (left out).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

# ruff: noqa: S608  the queries are put together from this file's own words

Type = Literal["integer", "number", "text"]


@dataclass(frozen=True)
class Column:
    name: str
    type: Type
    says: str
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """``select`` has the parameters ``:since`` and ``:until`` where the table is ``timed``."""

    name: str
    says: str
    columns: Sequence[Column]
    select: str
    timed: bool = True

    def rows(
        self, connection: Connection, since: int, until: int, limit: int = -1, offset: int = 0
    ) -> list[tuple[Any, ...]]:
        """Rows in a fixed order; ``limit`` −1 is all of them."""
        found = connection.exec_driver_sql(
            f"{self.select} LIMIT :limit OFFSET :offset",
            {"since": since, "until": until, "limit": limit, "offset": offset},
        )
        return [tuple(row) for row in found]

    def parts(
        self, connection: Connection, since: int, until: int, rows_max: int
    ) -> Iterator[list[tuple[Any, ...]]]:
        """The same rows, some at a time."""
        found = connection.exec_driver_sql(self.select, {"since": since, "until": until})
        for part in found.partitions(rows_max):
            yield [tuple(row) for row in part]


def _int(name: str, says: str, optional: bool = False) -> Column:
    return Column(name, "integer", says, optional)


def _number(name: str, says: str, optional: bool = False) -> Column:
    return Column(name, "number", says, optional)


def _text(name: str, says: str, optional: bool = False) -> Column:
    return Column(name, "text", says, optional)


_START = _int("interval_start", "start of the interval, Unix seconds")
_METER = _text("meter", "address of the meter's key")
_BETWEEN = "interval_start >= :since AND interval_start < :until"


_TARIFF = ("import_price", "export_price", "local_fee", "import_fees", "floor", "cap")
_PRICES = {"import": "import_price", "export": "export_price", "local": "local_fee"}
_PARTS = ("energy", "network", "levies", "vat")


def _in_record(member: str, fields: str, order: str) -> str:
    """Rows of a list inside the clearing record."""
    return (
        f"SELECT interval_start, {fields} FROM clearing, json_each(record, '$.{member}') AS item"
        f" WHERE {_BETWEEN} ORDER BY interval_start, {order}"
    )


def _member(name: str) -> str:
    return f"json_extract(item.value, '$.{name}')"


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
        "SELECT interval_start, minutes, opens_at, closes_at, state, incomplete, revision,"
        " json_extract(record, '$.welfare_eur'), json_extract(record, '$.import_wh'),"
        " json_extract(record, '$.export_wh'), json_extract(record, '$.losses_wh'),"
        " json_extract(record, '$.ac.violations'), json_extract(delivered, '$.violations'), root"
        f" FROM interval LEFT JOIN clearing USING (interval_start) WHERE {_BETWEEN} ORDER BY interval_start",
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
        "SELECT interval_start, number, state, at, reason FROM transition"
        f" WHERE {_BETWEEN} ORDER BY interval_start, number",
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
        _in_record("fills", f"{_member('order_id')}, {_member('energy_wh')}, {_member('price')}", "item.id"),
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
            ", ".join(_member(name) for name in ("buy", "sell", "energy_wh", "buy_price", "sell_price")),
            "item.id",
        ),
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
            ", ".join(
                _member(name)
                for name in ("bus", "price", "energy", "losses", "congestion", "voltage", "price_q")
            ),
            "item.id",
        ),
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
            ", ".join(
                _member(name)
                for name in (
                    "element",
                    "side",
                    "kind",
                    "loading_percent",
                    "v_pu",
                    "shadow_price_eur_per_mwh",
                )
            ),
            "item.id",
        ),
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
        f"SELECT interval_start, meter, version, received_at, body FROM orders WHERE {_BETWEEN}"
        " ORDER BY interval_start, meter, version",
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
        f"SELECT interval_start, meter, net_wh, amount_neur, body FROM award WHERE {_BETWEEN}"
        " ORDER BY interval_start, meter",
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
        "SELECT meter, epoch, seq, taken_at, import_wh, export_wh, power_w, quality, received_at FROM reading"
        " WHERE taken_at >= :since AND taken_at < :until ORDER BY taken_at, meter, epoch, seq",
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
        f"SELECT interval_start, revision, meter, import_wh, export_wh, flag FROM metered WHERE {_BETWEEN}"
        " ORDER BY interval_start, revision, meter",
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
        f"SELECT interval_start, revision, account, kind, amount_neur, energy_wh, batch FROM posting"
        f" WHERE {_BETWEEN} ORDER BY interval_start, revision, account, kind",
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
        "SELECT sequence, state, made_at, root, tx_hash, gas, COUNT(account),"
        " COALESCE(SUM(MAX(amount_ueur, 0)), 0) FROM batch LEFT JOIN position USING (sequence)"
        " WHERE made_at >= :since AND made_at < :until GROUP BY sequence ORDER BY sequence",
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
        "SELECT kind, subject, first_at, last_at, count, detail FROM alarm"
        " WHERE last_at >= :since AND last_at < :until ORDER BY last_at, kind, subject",
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
        "SELECT interval_start, "
        + ", ".join(f"json_extract(tariff, '$.{name}')" for name in _TARIFF)
        + "".join(f", json_extract(tariff, '$.{price}_parts.{part}')" for price in _PRICES for part in _PARTS)
        + f" FROM interval WHERE {_BETWEEN} ORDER BY interval_start",
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
        "SELECT first_start, meter, json_extract(member, '$.connection_point'),"
        " json_extract(member, '$.owner'), json_extract(member, '$.fuse_w') FROM member_change"
        " WHERE first_start >= :since AND first_start < :until ORDER BY first_start, meter",
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
        "SELECT id, given_at, actor, kind, body, reason, done_at, refusal FROM instruction"
        " WHERE given_at >= :since AND given_at < :until ORDER BY id",
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
        "SELECT id, interval_start, meter, opened_at, reason, held_neur, closed_at, decision,"
        " decision_reason, import_wh, export_wh FROM dispute"
        f" WHERE {_BETWEEN} ORDER BY id",
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
        "SELECT at, block, supply_ueur, deposits_ueur, backing_ueur, guarantee_ueur, withdrawals_ueur,"
        " paused, accounts FROM chain_books WHERE at >= :since AND at < :until ORDER BY at",
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
        "SELECT meter, owner, connection_point, bus, fuse_w, software, online, COALESCE(forged, 0)"
        " FROM meter LEFT JOIN meter_presence USING (meter) ORDER BY meter",
        timed=False,
    ),
    Table(
        "accounts",
        "Accounts in the ledger and on the chain.",
        (
            _text("account", "household:<meter>, retailer, network, imbalance or rounding"),
            _text("address", "its holder on the chain"),
            _int("deposit_ueur", "µEUR"),
            _int("ledger_neur", "balance without the deposit, nEUR"),
            _int("settled_ueur", "brought to the chain, µEUR"),
        ),
        "SELECT account, address, deposit_ueur, COALESCE(ledger_neur, 0), COALESCE(settled_ueur, 0)"
        " FROM account LEFT JOIN balance USING (account) ORDER BY account",
        timed=False,
    ),
)

TABLES = {table.name: table for table in _ALL}
