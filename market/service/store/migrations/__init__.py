"""From the schema of an older Peergrid to this one's, by Alembic's scripts in ``versions``.

A revision is named by its ``SCHEMA_VERSION``.
"""

from __future__ import annotations

from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, update

from grid.errors import StoreError
from market.service.store import schema


def upgrade_to(tx: Connection, version: str, target: str = "head") -> None:
    """Brings a database of schema ``version`` up to date (``base`` is an empty one), all in one transaction.

    Raises :class:`StoreError` where there is no way from there.
    """
    scripts = ScriptDirectory(str(Path(__file__).parent))
    try:
        way = list(scripts.iterate_revisions(target, version))
    except (CommandError, RevisionError) as error:
        raise StoreError(f"schema_version {version} cannot be upgraded: {error}") from None
    with Operations.context(MigrationContext.configure(tx)):
        for script in reversed(way):
            script.module.upgrade()
    tx.execute(update(schema.run).where(schema.run.c.key == "schema_version").values(value=way[0].revision))
