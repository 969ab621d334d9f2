"""The worker that scores, made slow, patient and mortal: it waits for helpers, and dies of shards as told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from qeval.score import worker
from qeval.score.engine import shards
from qeval.score.engine.engine import Engine

_whole = Engine.whole
_begun: list[int] = []


def whole(self, requests, shard, want):
    """As the engine's, after a while. Where QEVAL_TEST_HELPERS names a folder, whoever leads waits after two
    shards until somebody helped. Where QEVAL_TEST_KILLS does, it may hold a file called by the first request
    of a shard: how many workers are still to die of it."""
    time.sleep(float(os.environ.get("QEVAL_TEST_SECONDS", "0.02")))
    _wait_for_help(self.book, os.environ.get("QEVAL_TEST_HELPERS"))
    folder = os.environ.get("QEVAL_TEST_KILLS")
    file = Path(folder or "/nowhere") / str(int(shards.members(shard)[0]))
    left = int(file.read_text()) if file.exists() else 0
    if left:
        begun = file.with_name(f".{file.name}.{os.getpid()}")  # two variants may be at their shards at once
        begun.write_text(str(left - 1))
        begun.replace(file)
        os.kill(os.getpid(), signal.SIGKILL)
    return _whole(self, requests, shard, want)


def _wait_for_help(book, folder):
    if book is None or folder is None:
        return
    sign = Path(folder) / book.folder.parent.name
    if book.helps:
        sign.touch()
    _begun.append(1)
    until = time.monotonic() + 300
    while len(_begun) == 3 and not sign.exists() and time.monotonic() < until:
        time.sleep(0.02)


if __name__ == "__main__":
    Engine.whole = whole
    worker.main()
