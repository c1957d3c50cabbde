"""The schema of the first released databases (SQLite only), as it was."""

from alembic import op

revision = "3"
down_revision = None

_STATEMENTS = (
    """
    CREATE TABLE account (
        account TEXT NOT NULL,
        address TEXT NOT NULL,
        deposit_ueur INTEGER NOT NULL,
        PRIMARY KEY (account),
        UNIQUE (address)
    )
        WITHOUT ROWID
    """,
    """
    CREATE TABLE alarm (
        kind TEXT NOT NULL,
        subject TEXT NOT NULL,
        first_at INTEGER NOT NULL,
        last_at INTEGER NOT NULL,
        count INTEGER NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (kind, subject),
        CHECK (kind IN ('contradiction', 'flood'))
    )
        WITHOUT ROWID
    """,
    """
    CREATE TABLE batch (
        sequence INTEGER NOT NULL,
        root TEXT NOT NULL,
        state TEXT NOT NULL,
        made_at INTEGER NOT NULL,
        tx_hash TEXT,
        gas INTEGER,
        PRIMARY KEY (sequence),
        CHECK (state IN ('PENDING', 'FINAL'))
    )
    """,
    """
    CREATE TABLE chain_transaction (
        number INTEGER NOT NULL,
        batch_id TEXT NOT NULL,
        sender TEXT NOT NULL,
        nonce INTEGER NOT NULL,
        hash TEXT NOT NULL,
        raw BLOB NOT NULL,
        block INTEGER,
        gas_used INTEGER,
        succeeded INTEGER,
        PRIMARY KEY (number),
        UNIQUE (hash)
    )
    """,
    """
    CREATE INDEX chain_transaction_by_nonce ON chain_transaction (sender, nonce)
    """,
    """
    CREATE INDEX ix_chain_transaction_batch_id ON chain_transaction (batch_id)
    """,
    """
    CREATE TABLE evidence (
        id INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        meter TEXT NOT NULL,
        digest BLOB NOT NULL,
        topic TEXT NOT NULL,
        payload BLOB NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (id),
        UNIQUE (digest)
    )
    """,
    """
    CREATE INDEX ix_evidence_meter ON evidence (meter)
    """,
    """
    CREATE TABLE interval (
        interval_start INTEGER NOT NULL,
        minutes INTEGER NOT NULL,
        opens_at INTEGER NOT NULL,
        closes_at INTEGER NOT NULL,
        state TEXT NOT NULL,
        tariff TEXT NOT NULL,
        incomplete INTEGER DEFAULT '0' NOT NULL,
        revision INTEGER DEFAULT '0' NOT NULL,
        PRIMARY KEY (interval_start),
        CHECK (state IN ('OPEN', 'CLOSED', 'CLEARED', 'SUSPENDED', 'METERED', 'SETTLED', 'FINAL', 'DISPUTED'))
    )
    """,
    """
    CREATE TABLE meter (
        meter TEXT NOT NULL,
        owner TEXT NOT NULL,
        connection_point TEXT NOT NULL,
        bus INTEGER NOT NULL,
        tan_phi_ppm INTEGER NOT NULL,
        fuse_w INTEGER NOT NULL,
        PRIMARY KEY (meter),
        UNIQUE (connection_point)
    )
        WITHOUT ROWID
    """,
    """
    CREATE TABLE outbox (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        topic TEXT NOT NULL,
        payload TEXT NOT NULL,
        retain INTEGER DEFAULT '0' NOT NULL
    )
    """,
    """
    CREATE TABLE run (
        "key" TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY ("key")
    )
        WITHOUT ROWID
    """,
    """
    CREATE TABLE award (
        interval_start INTEGER NOT NULL,
        meter TEXT NOT NULL,
        net_wh INTEGER NOT NULL,
        amount_neur INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (interval_start, meter),
        FOREIGN KEY(interval_start) REFERENCES interval (interval_start),
        FOREIGN KEY(meter) REFERENCES meter (meter)
    )
        WITHOUT ROWID
    """,
    """
    CREATE TABLE clearing (
        interval_start INTEGER NOT NULL,
        status TEXT NOT NULL,
        root TEXT NOT NULL,
        book TEXT NOT NULL,
        record TEXT NOT NULL,
        without_network TEXT,
        delivered TEXT,
        PRIMARY KEY (interval_start),
        FOREIGN KEY(interval_start) REFERENCES interval (interval_start)
    )
    """,
    """
    CREATE TABLE metered (
        interval_start INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        meter TEXT NOT NULL,
        import_wh INTEGER,
        export_wh INTEGER,
        flag TEXT NOT NULL,
        PRIMARY KEY (interval_start, revision, meter),
        FOREIGN KEY(interval_start) REFERENCES interval (interval_start),
        FOREIGN KEY(meter) REFERENCES meter (meter)
    )
        WITHOUT ROWID
    """,
    """
    CREATE TABLE orders (
        interval_start INTEGER NOT NULL,
        meter TEXT NOT NULL,
        version INTEGER NOT NULL,
        digest BLOB NOT NULL,
        received_at INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (interval_start, meter, version),
        FOREIGN KEY(meter) REFERENCES meter (meter)
    )
        WITHOUT ROWID
    """,
    """
    CREATE TABLE position (
        sequence INTEGER NOT NULL,
        account TEXT NOT NULL,
        amount_ueur INTEGER NOT NULL,
        PRIMARY KEY (sequence, account),
        FOREIGN KEY(sequence) REFERENCES batch (sequence),
        FOREIGN KEY(account) REFERENCES account (account)
    )
        WITHOUT ROWID
    """,
    """
    CREATE TABLE posting (
        interval_start INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        account TEXT NOT NULL,
        kind TEXT NOT NULL,
        amount_neur INTEGER NOT NULL,
        energy_wh INTEGER NOT NULL,
        batch INTEGER NOT NULL,
        PRIMARY KEY (interval_start, revision, account, kind),
        FOREIGN KEY(interval_start) REFERENCES interval (interval_start),
        FOREIGN KEY(account) REFERENCES account (account)
    )
        WITHOUT ROWID
    """,
    """
    CREATE INDEX posting_by_batch ON posting (batch)
    """,
    """
    CREATE TABLE reading (
        meter TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        taken_at INTEGER NOT NULL,
        import_wh INTEGER NOT NULL,
        export_wh INTEGER NOT NULL,
        power_w INTEGER NOT NULL,
        quality INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        digest BLOB NOT NULL,
        sig TEXT NOT NULL,
        PRIMARY KEY (meter, epoch, seq),
        FOREIGN KEY(meter) REFERENCES meter (meter)
    )
        WITHOUT ROWID
    """,
    """
    CREATE INDEX reading_by_time ON reading (taken_at, meter)
    """,
    """
    CREATE TABLE reading_progress (
        meter TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        up_to INTEGER NOT NULL,
        digest BLOB NOT NULL,
        PRIMARY KEY (meter, epoch),
        FOREIGN KEY(meter) REFERENCES meter (meter)
    )
        WITHOUT ROWID
    """,
    """
    CREATE TABLE reading_refused (
        meter TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        digest BLOB NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (meter, epoch, seq),
        FOREIGN KEY(meter) REFERENCES meter (meter)
    )
        WITHOUT ROWID
    """,
    """
    CREATE TABLE transition (
        interval_start INTEGER NOT NULL,
        number INTEGER NOT NULL,
        state TEXT NOT NULL,
        at INTEGER NOT NULL,
        reason TEXT DEFAULT '' NOT NULL,
        PRIMARY KEY (interval_start, number),
        FOREIGN KEY(interval_start) REFERENCES interval (interval_start)
    )
        WITHOUT ROWID
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
