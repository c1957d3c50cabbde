"""What a fault test checks, in its output: the suite reads as a list of promises (``pytest -rP``)."""

from __future__ import annotations

import sys


def promise(words: str) -> None:
    sys.stdout.write(f"\npromise: {words}\n")
