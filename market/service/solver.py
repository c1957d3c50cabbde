"""The solver in a process of its own: whatever it does, the market has its answer by the deadline or goes on.

The process has the feeder open and clears one book after the other. One that does not answer is killed and
replaced by the next call.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock

from grid.errors import FeederError, PeergridError, PowerFlowError, SolverError
from market.auction.book import Book
from market.auction.record import ClearingRecord
from market.service.steps import RoundsCounted, Solved

GRACE_S = 2.0
"""How long after the deadline an answer is waited for: the search looks at the clock between its rounds."""
START_S = 120.0
"""How long a process may take to open its feeder."""

_Answer = tuple[str, str, int | None]


class SolverProcess:
    """``with SolverProcess(feeder_name) as solver``; names are paths from ``base``.

    One book at a time; calls may come from any thread.
    """

    def __init__(
        self,
        feeder_name: str,
        serve: Callable[[Connection, str, Path | None], None] | None = None,
        base: Path | None = None,
    ) -> None:
        self._feeder_name = feeder_name
        self._base = base
        self._serve = serve or serve_books
        self._context = multiprocessing.get_context("spawn")
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._lock = Lock()

    def __enter__(self) -> SolverProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._kill()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Starts the process and waits until it has the feeder. Raises :class:`SolverError`."""
        with self._lock:
            self._begin()

    def clear(self, book: Book, seconds: float) -> Solved:
        """The clearing within ``seconds``. Raises :class:`SolverError` where there is none by then."""
        end = time.monotonic() + seconds
        with self._lock:
            if self._process is None or not self._process.is_alive():
                self._begin()
            assert self._pipe is not None
            left_s = end - time.monotonic()
            try:
                self._pipe.send((book.model_dump_json(), left_s))
                if not self._pipe.poll(max(0.0, left_s) + GRACE_S):
                    raise SolverError(f"the solver gave no answer within {seconds:.0f} s and was killed")
                kind, text, rounds = self._pipe.recv()
            except (EOFError, OSError) as error:
                self._kill()
                raise SolverError("the solver's process ended") from error
            except SolverError:
                self._kill()
                raise
        if kind != "record":
            raise SolverError(text)
        return Solved(ClearingRecord.model_validate_json(text), rounds=rounds)

    def _begin(self) -> None:
        self._kill()
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=self._serve, args=(theirs, self._feeder_name, self._base), name="solver", daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            if not self._pipe.poll(START_S):
                raise SolverError(f"the solver did not start within {START_S:.0f} s")
            kind, text, _ = self._pipe.recv()
        except (EOFError, SolverError) as error:
            self._kill()
            raise SolverError(f"the solver cannot be started: {error}") from error
        if kind != "ready":
            self._kill()
            raise SolverError(text)

    def _kill(self) -> None:
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if process is not None:
            process.kill()
            process.join()
        if pipe is not None:
            pipe.close()


def serve_books(pipe: Connection, feeder_name: str, base: Path | None) -> None:
    """The process: answers until nobody asks any more. A book may name another feeder than the first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the market's own process decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from grid.catalogue import open_feeder
    from market.auction.clearing import clear_book

    try:
        feeders = {feeder_name: open_feeder(feeder_name, base)}
    except FeederError as error:
        pipe.send(("error", str(error), None))
        return
    pipe.send(("ready", "", None))
    with contextlib.suppress(EOFError):
        while True:
            text, seconds = pipe.recv()
            end = time.monotonic() + seconds
            deadline = RoundsCounted(lambda end=end: time.monotonic() >= end)  # type: ignore[misc]
            try:
                book = Book.model_validate_json(text)
                name = book.feeder or feeder_name
                if name not in feeders:
                    feeders[name] = open_feeder(name, base)
                record = clear_book(book, feeders[name], out_of_time=deadline)
                answer: _Answer = ("record", record.model_dump_json(), deadline.rounds)
            except (PowerFlowError, PeergridError, ArithmeticError, ValueError) as error:
                answer = ("error", f"{type(error).__name__}: {error}", None)
            pipe.send(answer)
