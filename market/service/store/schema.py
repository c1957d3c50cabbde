"""The tables of one market's database (design section 7).

Times are Unix seconds, energies Wh, prices µEUR/kWh, ledger money nEUR, chain money µEUR. Documents are JSON
text. ``interval_start`` names an interval everywhere.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    event,
)

SCHEMA_VERSION = 9

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

Whole = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere: a year of a feeder's money does not fit into 32."""

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
    Column("connection_point", Text, nullable=False, comment="as registered last"),
    Column("bus", Whole, nullable=False),
    Column("tan_phi_ppm", Whole, nullable=False, comment="tan φ of its flexible energy, in millionths"),
    Column("fuse_w", Whole, nullable=False),
    sqlite_with_rowid=False,
)

account = Table(
    "account",
    metadata,
    Column("account", Text, primary_key=True, comment="household:<meter>, retailer, network, …"),
    Column("address", Text, nullable=False, comment="its first holder; later ones: member_change"),
    Column("deposit_ueur", Whole, nullable=False),
    sqlite_with_rowid=False,
)

order = Table(
    "orders",
    metadata,
    Column("interval_start", Whole, primary_key=True),
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("version", Whole, primary_key=True),
    Column("digest", LargeBinary, nullable=False, comment="EIP-712 digest: its identity"),
    Column("received_at", Whole, nullable=False),
    Column("body", Text, nullable=False, comment="the signed message"),
    comment="every accepted version; the highest one counts",
    sqlite_with_rowid=False,
)

reading = Table(
    "reading",
    metadata,
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("epoch", Whole, primary_key=True),
    Column("seq", Whole, primary_key=True),
    Column("taken_at", Whole, nullable=False),
    Column("import_wh", Whole, nullable=False),
    Column("export_wh", Whole, nullable=False),
    Column("power_w", Whole, nullable=False),
    Column("quality", Whole, nullable=False),
    Column("received_at", Whole, nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="of the message that brought it"),
    Column("sig", Text, nullable=False),
    sqlite_with_rowid=False,
)
Index("reading_by_time", reading.c.taken_at, reading.c.meter)

interval = Table(
    "interval",
    metadata,
    Column("interval_start", Whole, primary_key=True),
    Column("minutes", Whole, nullable=False),
    Column("opens_at", Whole, nullable=False),
    Column("closes_at", Whole, nullable=False),
    Column("state", Text, nullable=False),
    Column("tariff", Text, nullable=False),
    Column("incomplete", Whole, nullable=False, server_default="0", comment="meters without readings yet"),
    Column("revision", Whole, nullable=False, server_default="0", comment="settlements of it so far"),
    CheckConstraint("state IN (" + ", ".join(f"'{state}'" for state in INTERVAL_STATES) + ")"),
)

Index("interval_by_state", interval.c.state)

transition = Table(
    "transition",
    metadata,
    Column("interval_start", Whole, ForeignKey("interval.interval_start"), primary_key=True),
    Column("number", Whole, primary_key=True),
    Column("state", Text, nullable=False),
    Column("at", Whole, nullable=False, comment="on the market's clock"),
    Column("reason", Text, nullable=False, server_default=""),
    sqlite_with_rowid=False,
)

clearing = Table(
    "clearing",
    metadata,
    Column("interval_start", Whole, ForeignKey("interval.interval_start"), primary_key=True),
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
    Column("interval_start", Whole, ForeignKey("interval.interval_start"), primary_key=True),
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("net_wh", Whole, nullable=False, comment="awarded net energy, export positive"),
    Column("amount_neur", Whole, nullable=False),
    Column("body", Text, nullable=False, comment="the signed message"),
    sqlite_with_rowid=False,
)

metered = Table(
    "metered",
    metadata,
    Column("interval_start", Whole, ForeignKey("interval.interval_start"), primary_key=True),
    Column("revision", Whole, primary_key=True),
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("import_wh", Whole, comment="NULL where no reading tells"),
    Column("export_wh", Whole),
    Column("flag", Text, nullable=False, comment="measured, interpolated, estimated or missing"),
    sqlite_with_rowid=False,
)

posting = Table(
    "posting",
    metadata,
    Column("interval_start", Whole, ForeignKey("interval.interval_start"), primary_key=True),
    Column("revision", Whole, primary_key=True, comment="0: settlement; above: adjustments to it"),
    Column("account", Text, ForeignKey("account.account"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("amount_neur", Whole, nullable=False, comment="> 0 is earned"),
    Column("energy_wh", Whole, nullable=False, comment="export and sales positive"),
    Column("batch", Whole, nullable=False, comment="sequence of the batch it goes to the chain with"),
    sqlite_with_rowid=False,
)
Index("posting_by_batch", posting.c.batch)

batch = Table(
    "batch",
    metadata,
    Column("sequence", Whole, primary_key=True),
    Column("root", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("made_at", Whole, nullable=False, comment="on the market's clock"),
    Column("tx_hash", Text),
    Column("gas", Whole),
    CheckConstraint("state IN ('PENDING', 'FINAL')"),
)
Index("batch_by_state", batch.c.state)
Index("batch_by_time", batch.c.made_at)

position = Table(
    "position",
    metadata,
    Column("sequence", Whole, ForeignKey("batch.sequence"), primary_key=True),
    Column("account", Text, ForeignKey("account.account"), primary_key=True),
    Column("amount_ueur", Whole, nullable=False),
    sqlite_with_rowid=False,
)

balance = Table(
    "balance",
    metadata,
    Column("account", Text, ForeignKey("account.account"), primary_key=True),
    Column("ledger_neur", Whole, nullable=False, comment="sum of its postings"),
    Column("settled_ueur", Whole, nullable=False, comment="sum of its positions"),
    comment="running sums, written with what they are sums of",
    sqlite_with_rowid=False,
)

chain_books = Table(
    "chain_books",
    metadata,
    Column("at", Whole, primary_key=True, comment="on the market's clock"),
    Column("block", Whole, nullable=False, comment="the newest one then"),
    Column("supply_ueur", Whole, nullable=False),
    Column("deposits_ueur", Whole, nullable=False, comment="came in less what went out, by events"),
    Column("backing_ueur", Whole, nullable=False, comment="stablecoin that the escrow holds"),
    Column("guarantee_ueur", Whole, nullable=False),
    Column("withdrawals_ueur", Whole, nullable=False, comment="announced and not paid"),
    Column("paused", Whole, nullable=False),
    Column("accounts", Text, nullable=False, comment="debts and announced withdrawals by address, JSON"),
    comment="what the chain had when it was last looked at; a line for every change",
)

chain_transaction = Table(
    "chain_transaction",
    metadata,
    Column("number", Whole, primary_key=True, comment="in the order of signing"),
    Column("batch_id", Text, nullable=False, index=True, comment="what it is for"),
    Column("sender", Text, nullable=False),
    Column("nonce", Whole, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("raw", LargeBinary, nullable=False),
    Column("block", Whole, comment="NULL until it is mined and confirmed"),
    Column("gas_used", Whole),
    Column("succeeded", Whole),
    comment="a nonce is one batch's; it may have several transactions, of which one is mined",
)
Index("chain_transaction_by_nonce", chain_transaction.c.sender, chain_transaction.c.nonce)
Index("chain_transaction_by_block", chain_transaction.c.sender, chain_transaction.c.block)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("topic", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("retain", Whole, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
    comment="what the broker has not acknowledged yet",
)

reading_progress = Table(
    "reading_progress",
    metadata,
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("epoch", Whole, primary_key=True),
    Column("up_to", Whole, nullable=False, comment="every seq up to it is stored, or was refused by name"),
    Column("digest", LargeBinary, nullable=False, comment="of the message that got there"),
    sqlite_with_rowid=False,
)

meter_presence = Table(
    "meter_presence",
    metadata,
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("online", Whole, comment="what its last status said; NULL before the first"),
    Column("since", Whole, comment="on the meter's clock"),
    Column("software", Text),
    Column("heard_at", Whole, comment="on the market's clock"),
    Column("forged", Whole, nullable=False, comment="messages on its topics that it had not signed"),
    Column("forged_at", Whole),
    sqlite_with_rowid=False,
)

reading_refused = Table(
    "reading_refused",
    metadata,
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("epoch", Whole, primary_key=True),
    Column("seq", Whole, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    comment="readings that their meter signed and the market refused: no gap that receipts would wait for",
    sqlite_with_rowid=False,
)

evidence = Table(
    "evidence",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("received_at", Whole, nullable=False),
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
    Column("subject", Text, primary_key=True, comment="the meter, or what of the market it is about"),
    Column("first_at", Whole, nullable=False, comment="on the market's clock"),
    Column("last_at", Whole, nullable=False),
    Column("count", Whole, nullable=False),
    Column("detail", Text, nullable=False, comment="of the last one"),
    sqlite_with_rowid=False,
)

notice = Table(
    "notice",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("at", Whole, nullable=False, comment="on the market's clock"),
    Column("made_at", Whole, nullable=False, comment="by the machine's clock"),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    sqlite_autoincrement=True,
    comment="what operators are to be told, written with what it tells of",
)
Index("notice_by_subject", notice.c.kind, notice.c.subject, notice.c.at)
Index("notice_by_age", notice.c.made_at)

delivery = Table(
    "delivery",
    metadata,
    Column("notice", Whole, ForeignKey("notice.id"), primary_key=True),
    Column("channel", Text, primary_key=True),
    Column("attempts", Whole, nullable=False),
    Column("next_at", Whole, nullable=False, comment="by the machine's clock"),
    Column("sent_at", Whole, comment="NULL until it was taken"),
    Column("error", Text, nullable=False, server_default="", comment="of the last attempt"),
    sqlite_with_rowid=False,
)

health = Table(
    "health",
    metadata,
    Column("part", Text, primary_key=True),
    Column("ok", Whole, nullable=False),
    Column("since", Whole, nullable=False, comment="by the machine's clock"),
    Column("seen_at", Whole, nullable=False),
    Column("at", Whole, nullable=False, comment="on the market's clock"),
    Column("detail", Text, nullable=False),
    sqlite_with_rowid=False,
    comment="how the market's process last found what it needs",
)

journal = Table(
    "journal",
    metadata,
    Column("id", Whole, primary_key=True, comment="in the order of acceptance"),
    Column("at", Whole, nullable=False, comment="on the market's clock"),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="the meter, or the interval's start"),
    Column("body", LargeBinary, nullable=False, comment="the message as it came, or a decision as JSON"),
    Column("detail", Text, nullable=False, server_default="", comment="which part of the message counts"),
    sqlite_autoincrement=True,
    comment="everything that the market's state follows from; rows are only added",
)
Index("journal_by_kind", journal.c.kind, journal.c.id)
for _change in ("UPDATE", "DELETE"):
    event.listen(
        journal,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER journal_no_{_change.lower()} BEFORE {_change} ON journal"
            " BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
        ).execute_if(dialect="sqlite"),
    )
event.listen(
    journal,
    "after_create",
    DDL(  # type: ignore[no-untyped-call]
        "CREATE OR REPLACE FUNCTION journal_is_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$;"
        " CREATE TRIGGER journal_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON journal"
        " EXECUTE FUNCTION journal_is_append_only()"
    ).execute_if(dialect="postgresql"),
)

instruction = Table(
    "instruction",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("given_at", Whole, nullable=False, comment="by the machine's clock"),
    Column("actor", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False, comment="JSON"),
    Column("reason", Text, nullable=False),
    Column("done_at", Whole, comment="on the market's clock; NULL until the market has looked at it"),
    Column("refusal", Text, comment="why it was not carried out; empty where it was"),
    sqlite_autoincrement=True,
    comment="what operators ask of the market, which carries it out itself",
)

suspension = Table(
    "suspension",
    metadata,
    Column("first_start", Whole, primary_key=True, comment="the first interval without trading"),
    Column("until_start", Whole, comment="the first interval with it again; NULL: not resumed"),
    Column("reason", Text, nullable=False),
)

tariff_change = Table(
    "tariff_change",
    metadata,
    Column("first_start", Whole, primary_key=True, comment="the first interval that it is for"),
    Column("tariff", Text, nullable=False),
)

member_change = Table(
    "member_change",
    metadata,
    Column("first_start", Whole, primary_key=True, comment="the first interval that it is for"),
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    Column("member", Text, comment="how it is registered from then on, JSON; NULL: no more"),
    sqlite_with_rowid=False,
)

grid_change = Table(
    "grid_change",
    metadata,
    Column("first_start", Whole, primary_key=True, comment="the first interval that it is for"),
    Column("feeder_name", Text, nullable=False),
    Column("feeder_sha256", Text, nullable=False, comment="another net by that name is refused"),
    Column("limits", Text, nullable=False),
    comment="the network and its limits, from an interval on",
)

dispute = Table(
    "dispute",
    metadata,
    Column("id", Whole, primary_key=True),
    Column("interval_start", Whole, ForeignKey("interval.interval_start"), nullable=False),
    Column("meter", Text, ForeignKey("meter.meter"), nullable=False),
    Column("opened_at", Whole, nullable=False, comment="on the market's clock"),
    Column("reason", Text, nullable=False),
    Column("held_neur", Whole, nullable=False, comment="what the household's account is spared meanwhile"),
    Column("closed_at", Whole),
    Column("decision", Text),
    Column("decision_reason", Text),
    Column("import_wh", Whole, comment="what the meter should have said, where it is upheld"),
    Column("export_wh", Whole),
    CheckConstraint("decision IN ('upheld', 'dismissed')"),
    sqlite_autoincrement=True,
)
Index("dispute_by_interval", dispute.c.interval_start)

recovery = Table(
    "recovery",
    metadata,
    Column("at", Whole, primary_key=True, comment="on the market's clock"),
    Column("first_sequence", Whole, nullable=False, comment="of the batches that were taken in"),
    Column("last_sequence", Whole, nullable=False),
    Column("known_until", Whole, nullable=False, comment="end of the last interval that was paid before"),
    Column("paid_until", Whole, nullable=False, comment="nothing that starts before it is settled again"),
    Column("reason", Text, nullable=False),
    comment="batches that the chain had and a restored database lacked",
)

reading_gap = Table(
    "reading_gap",
    metadata,
    Column("meter", Text, ForeignKey("meter.meter"), primary_key=True),
    comment="no reading came since a recovery: the next one goes on from wherever it is",
    sqlite_with_rowid=False,
)

lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False, comment="empty when it was given back"),
    Column("fence", Whole, nullable=False, comment="rises with every holder"),
    Column("beat", Whole, nullable=False, comment="rises while the holder lives"),
    sqlite_with_rowid=False,
    comment="which market process may write",
)
