"""Journal, instructions with what follows from them, and the lease."""

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"

_WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_index("interval_by_state", "interval", ["state"])
    # Alarms of more kinds: SQLite takes no constraint off a table that stands.
    op.rename_table("alarm", "alarm_before")
    op.create_table(
        "alarm",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("first_at", _WHOLE, nullable=False),
        sa.Column("last_at", _WHOLE, nullable=False),
        sa.Column("count", _WHOLE, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO alarm SELECT kind, subject, first_at, last_at, count, detail FROM alarm_before")
    op.drop_table("alarm_before")
    op.create_table(
        "journal",
        sa.Column("id", _WHOLE, primary_key=True),
        sa.Column("at", _WHOLE, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("detail", sa.Text, nullable=False, server_default=""),
        sqlite_autoincrement=True,
    )
    op.create_index("journal_by_kind", "journal", ["kind", "id"])
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER journal_no_{change.lower()} BEFORE {change} ON journal"
            " BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
        )
    op.create_table(
        "instruction",
        sa.Column("id", _WHOLE, primary_key=True),
        sa.Column("given_at", _WHOLE, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("done_at", _WHOLE),
        sa.Column("refusal", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "suspension",
        sa.Column("first_start", _WHOLE, primary_key=True),
        sa.Column("until_start", _WHOLE),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "tariff_change",
        sa.Column("first_start", _WHOLE, primary_key=True),
        sa.Column("tariff", sa.Text, nullable=False),
    )
    op.create_table(
        "dispute",
        sa.Column("id", _WHOLE, primary_key=True),
        sa.Column("interval_start", _WHOLE, sa.ForeignKey("interval.interval_start"), nullable=False),
        sa.Column("meter", sa.Text, sa.ForeignKey("meter.meter"), nullable=False),
        sa.Column("opened_at", _WHOLE, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("held_neur", _WHOLE, nullable=False),
        sa.Column("closed_at", _WHOLE),
        sa.Column("decision", sa.Text),
        sa.Column("decision_reason", sa.Text),
        sa.Column("import_wh", _WHOLE),
        sa.Column("export_wh", _WHOLE),
        sa.CheckConstraint("decision IN ('upheld', 'dismissed')"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("fence", _WHOLE, nullable=False),
        sa.Column("beat", _WHOLE, nullable=False),
        sqlite_with_rowid=False,
    )
