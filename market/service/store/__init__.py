"""The market's database: the one place where SQL lives.

:class:`Store` opens it and gives transactions; the modules beside it read and write inside them, by subject.
"""

from market.service.store.database import Store

__all__ = ["Store"]
