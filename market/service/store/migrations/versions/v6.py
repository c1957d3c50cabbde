"""Networks by interval, notices to operators, and how the market's parts are."""

import sqlalchemy as sa
from alembic import op

revision = "6"
down_revision = "5"

_WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "grid_change",
        sa.Column("first_start", _WHOLE, primary_key=True),
        sa.Column("feeder_name", sa.Text, nullable=False),
        sa.Column("feeder_sha256", sa.Text, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
    )
    op.create_table(
        "notice",
        sa.Column("id", _WHOLE, primary_key=True),
        sa.Column("at", _WHOLE, nullable=False),
        sa.Column("made_at", _WHOLE, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("notice_by_subject", "notice", ["kind", "subject", "at"])
    op.create_table(
        "delivery",
        sa.Column("notice", _WHOLE, sa.ForeignKey("notice.id"), primary_key=True),
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("attempts", _WHOLE, nullable=False),
        sa.Column("next_at", _WHOLE, nullable=False),
        sa.Column("sent_at", _WHOLE),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "health",
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("ok", _WHOLE, nullable=False),
        sa.Column("since", _WHOLE, nullable=False),
        sa.Column("seen_at", _WHOLE, nullable=False),
        sa.Column("at", _WHOLE, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
