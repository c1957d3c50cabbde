"""Batches that a restored database lacked and the chain had."""

import sqlalchemy as sa
from alembic import op

revision = "9"
down_revision = "8"

_WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "recovery",
        sa.Column("at", _WHOLE, primary_key=True),
        sa.Column("first_sequence", _WHOLE, nullable=False),
        sa.Column("last_sequence", _WHOLE, nullable=False),
        sa.Column("known_until", _WHOLE, nullable=False),
        sa.Column("paid_until", _WHOLE, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "reading_gap",
        sa.Column("meter", sa.Text, sa.ForeignKey("meter.meter"), primary_key=True),
        sqlite_with_rowid=False,
    )
