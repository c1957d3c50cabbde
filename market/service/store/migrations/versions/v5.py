"""Running balances, the chain's books, and what meters say of themselves."""

import sqlalchemy as sa
from alembic import op

revision = "5"
down_revision = "4"

_WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "balance",
        sa.Column("account", sa.Text, sa.ForeignKey("account.account"), primary_key=True),
        sa.Column("ledger_neur", _WHOLE, nullable=False),
        sa.Column("settled_ueur", _WHOLE, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO balance SELECT account,"
        " (SELECT COALESCE(SUM(amount_neur), 0) FROM posting WHERE posting.account = account.account),"
        " (SELECT COALESCE(SUM(amount_ueur), 0) FROM position WHERE position.account = account.account)"
        " FROM account"
    )
    op.create_table(
        "chain_books",
        sa.Column("at", _WHOLE, primary_key=True),
        sa.Column("block", _WHOLE, nullable=False),
        sa.Column("supply_ueur", _WHOLE, nullable=False),
        sa.Column("deposits_ueur", _WHOLE, nullable=False),
        sa.Column("backing_ueur", _WHOLE, nullable=False),
        sa.Column("guarantee_ueur", _WHOLE, nullable=False),
        sa.Column("withdrawals_ueur", _WHOLE, nullable=False),
        sa.Column("paused", _WHOLE, nullable=False),
        sa.Column("accounts", sa.Text, nullable=False),
    )
    op.create_table(
        "meter_presence",
        sa.Column("meter", sa.Text, sa.ForeignKey("meter.meter"), primary_key=True),
        sa.Column("online", _WHOLE),
        sa.Column("since", _WHOLE),
        sa.Column("software", sa.Text),
        sa.Column("heard_at", _WHOLE),
        sa.Column("forged", _WHOLE, nullable=False),
        sa.Column("forged_at", _WHOLE),
        sqlite_with_rowid=False,
    )
