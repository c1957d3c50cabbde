"""What is asked for again and again is found without reading all that there ever was."""

from alembic import op

revision = "8"
down_revision = "7"


def upgrade() -> None:
    op.create_index("batch_by_state", "batch", ["state"])
    op.create_index("batch_by_time", "batch", ["made_at"])
    op.create_index("chain_transaction_by_block", "chain_transaction", ["sender", "block"])
    op.create_index("notice_by_age", "notice", ["made_at"])
    op.create_index("dispute_by_interval", "dispute", ["interval_start"])
