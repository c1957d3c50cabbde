"""``peergrid dispute``."""

from market.cli.operate import dispute as command

__all__ = ["command"]
