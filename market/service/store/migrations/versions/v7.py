"""Members by interval: a connection point may have another meter later, an owner several meters."""

import sqlalchemy as sa
from alembic import op

revision = "7"
down_revision = "6"

_WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("PRAGMA defer_foreign_keys = ON")
        meter = ("owner", "connection_point"), ("bus", "tan_phi_ppm", "fuse_w")
        _without_unique("meter", "meter", *meter)
        _without_unique("account", "account", ("address",), ("deposit_ueur",))
    else:
        op.drop_constraint("meter_connection_point_key", "meter", type_="unique")
        op.drop_constraint("account_address_key", "account", type_="unique")
    op.create_table(
        "member_change",
        sa.Column("first_start", _WHOLE, primary_key=True),
        sa.Column("meter", sa.Text, sa.ForeignKey("meter.meter"), primary_key=True),
        sa.Column("member", sa.Text),
        sqlite_with_rowid=False,
    )


def _without_unique(table: str, key: str, texts: tuple[str, ...], integers: tuple[str, ...]) -> None:
    """SQLite has no other way; who refers to the rows finds them again before the transaction ends."""
    names = ", ".join((key, *texts, *integers))
    op.execute(f"CREATE TEMP TABLE kept AS SELECT {names} FROM {table}")  # noqa: S608
    op.drop_table(table)
    op.create_table(
        table,
        sa.Column(key, sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in texts),
        *(sa.Column(name, _WHOLE, nullable=False) for name in integers),
        sqlite_with_rowid=False,
    )
    op.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM kept")  # noqa: S608
    op.execute("DROP TABLE kept")
