"""The tables of one market's database (design section 7).

Times are Unix seconds, energies Wh, prices µEUR/kWh, ledger money nEUR, chain money µEUR. Documents are JSON
text. ``interval_start`` names an interval everywhere.
"""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

SCHEMA_VERSION = 3

INTERVAL_STATES = (
    "OPEN",
    "CLOSED",
    "CLEARED",
    "SUSPENDED",
    "METERED",
    "SETTLED",
    "FINAL",
    "DISPUTED",
)

metadata = MetaData()

run = Table(
    "run",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    comment="what this database is of: schema version, feeder, seed, configuration hash",
    sqlite_with_rowid=False,
)

meter = Table(
    "meter",
    metadata,
    Column("meter", Text, primary_key=True, comment="address of the meter's key"),
    Column("owner", Text, nullable=False, comment="address of the household's wallet"),
    Column("connection_point", Text, nullable=False, unique=True),
    Column("bus", Integer, nullable=False),
    Column("tan_phi_ppm", Integer, nullable=False, comment="tan φ of its flexible energy, in millionths"),
    Column("fuse_w", Integer, nullable=False),
    sqlite_with_rowid=False,
)

account = Table(
    "account",
    metadata,
    Column("account", Text, primary_key=True, comment="household:<meter>, retailer, network, …"),
    Column("address", Text, nullable=False, unique=True, comment="its holder on the chain"),
    Column("deposit_ueur", Integer, nullable=False),
    sqlite_with_rowid=False,
)

order = Table(
    "orders",
    metadata,
    Column("interval_start", Integer, primary_key=True),
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", LargeBinary, nullable=False, comment="EIP-712 digest: its identity"),
    Column("received_at", Integer, nullable=False),
    Column("body", Text, nullable=False, comment="the signed message"),
    comment="every accepted version; the highest one counts",
    sqlite_with_rowid=False,
)

reading = Table(
    "reading",
    metadata,
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("taken_at", Integer, nullable=False),
    Column("import_wh", Integer, nullable=False),
    Column("export_wh", Integer, nullable=False),
    Column("power_w", Integer, nullable=False),
    Column("quality", Integer, nullable=False),
    Column("received_at", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="of the message that brought it"),
    Column("sig", Text, nullable=False),
    sqlite_with_rowid=False,
)
Index("reading_by_time", reading.c.taken_at, reading.c.meter)

interval = Table(
    "interval",
    metadata,
    Column("interval_start", Integer, primary_key=True),
    Column("minutes", Integer, nullable=False),
    Column("opens_at", Integer, nullable=False),
    Column("closes_at", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("tariff", Text, nullable=False),
    Column("incomplete", Integer, nullable=False, server_default="0", comment="meters without readings yet"),
    Column("revision", Integer, nullable=False, server_default="0", comment="settlements of it so far"),
    CheckConstraint("state IN (" + ", ".join(f"'{state}'" for state in INTERVAL_STATES) + ")"),
)

transition = Table(
    "transition",
    metadata,
    Column("interval_start", Integer, ForeignKey("interval.interval_start"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", Text, nullable=False),
    Column("at", Integer, nullable=False, comment="on the market's clock"),
    Column("reason", Text, nullable=False, server_default=""),
    sqlite_with_rowid=False,
)

clearing = Table(
    "clearing",
    metadata,
    Column("interval_start", Integer, ForeignKey("interval.interval_start"), primary_key=True),
    Column("status", Text, nullable=False),
    Column("root", Text, nullable=False, comment="hash of the record: what the chain commits to"),
    Column("book", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("without_network", Text, comment="the same book cleared as if there were no network, AC-checked"),
    Column("delivered", Text, comment="AC check of the metered energy"),
)

award = Table(
    "award",
    metadata,
    Column("interval_start", Integer, ForeignKey("interval.interval_start"), primary_key=True),
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("net_wh", Integer, nullable=False, comment="awarded net energy, export positive"),
    Column("amount_neur", Integer, nullable=False),
    Column("body", Text, nullable=False, comment="the signed message"),
    sqlite_with_rowid=False,
)

metered = Table(
    "metered",
    metadata,
    Column("interval_start", Integer, ForeignKey("interval.interval_start"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("import_wh", Integer, comment="NULL where no reading tells"),
    Column("export_wh", Integer),
    Column("flag", Text, nullable=False, comment="measured, interpolated, estimated or missing"),
    sqlite_with_rowid=False,
)

posting = Table(
    "posting",
    metadata,
    Column("interval_start", Integer, ForeignKey("interval.interval_start"), primary_key=True),
    Column("revision", Integer, primary_key=True, comment="0: settlement; above: adjustments to it"),
    Column("account", Text, ForeignKey("account.account"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("amount_neur", Integer, nullable=False, comment="> 0 is earned"),
    Column("energy_wh", Integer, nullable=False, comment="export and sales positive"),
    Column("batch", Integer, nullable=False, comment="sequence of the batch it goes to the chain with"),
    sqlite_with_rowid=False,
)
Index("posting_by_batch", posting.c.batch)

batch = Table(
    "batch",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("root", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("made_at", Integer, nullable=False, comment="on the market's clock"),
    Column("tx_hash", Text),
    Column("gas", Integer),
    CheckConstraint("state IN ('PENDING', 'FINAL')"),
)

position = Table(
    "position",
    metadata,
    Column("sequence", Integer, ForeignKey("batch.sequence"), primary_key=True),
    Column("account", Text, ForeignKey("account.account"), primary_key=True),
    Column("amount_ueur", Integer, nullable=False),
    sqlite_with_rowid=False,
)

chain_transaction = Table(
    "chain_transaction",
    metadata,
    Column("number", Integer, primary_key=True, comment="in the order of signing"),
    Column("batch_id", Text, nullable=False, index=True, comment="what it is for"),
    Column("sender", Text, nullable=False),
    Column("nonce", Integer, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("raw", LargeBinary, nullable=False),
    Column("block", Integer, comment="NULL until it is mined and confirmed"),
    Column("gas_used", Integer),
    Column("succeeded", Integer),
    comment="a nonce is one batch's; it may have several transactions, of which one is mined",
)
Index("chain_transaction_by_nonce", chain_transaction.c.sender, chain_transaction.c.nonce)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("retain", Integer, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
    comment="what the broker has not acknowledged yet",
)

reading_progress = Table(
    "reading_progress",
    metadata,
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("up_to", Integer, nullable=False, comment="every seq up to it is stored, or was refused by name"),
    Column("digest", LargeBinary, nullable=False, comment="of the message that got there"),
    sqlite_with_rowid=False,
)

reading_refused = Table(
    "reading_refused",
    metadata,
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    comment="readings that their meter signed and the market refused: no gap that receipts would wait for",
    sqlite_with_rowid=False,
)

evidence = Table(
    "evidence",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("received_at", Integer, nullable=False),
    Column("meter", Text, nullable=False, index=True),
    Column("digest", LargeBinary, nullable=False, unique=True, comment="what the meter signed"),
    Column("topic", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    comment="signed messages that contradict a stored one",
)

alarm = Table(
    "alarm",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("subject", Text, primary_key=True, comment="the meter"),
    Column("first_at", Integer, nullable=False, comment="on the market's clock"),
    Column("last_at", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("detail", Text, nullable=False, comment="of the last one"),
    CheckConstraint("kind IN ('contradiction', 'flood')"),
    sqlite_with_rowid=False,
)
