"""Workers forked from one process that has imported what they need: each starts in hundredths of a second.

`Nursery().command()` stands where `run.workers.WORKER` does. It starts a small process in front of the
worker, which gives its standard input and output to it, hands SIGTERM on, dies as it dies, and takes it along
when it is killed itself.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

POSSIBLE = hasattr(os, "pidfd_open")
_HEAD = struct.Struct("!I")
_STATUS = struct.Struct("!i")
_END = b"T"
_PARENT_SECONDS = 5
_EARLY = (
    "HOME", "XDG_", "HF_", "TRANSFORMERS_", "TORCH", "PYTHON", "LD_", "OMP_", "GOMP_", "KMP_", "MKL_"
)  # fmt: skip
"""Beginnings of variables that libraries read when they are imported: where a worker's differ from those of
the process that forks, it is a fresh process after all."""
_DATASETS, _THREADS = _LATE = ("HF_DATASETS_CACHE", "OMP_NUM_THREADS")
"""Those of them that a worker can be given later."""
_SET = "/tmp/tokenicer_hf_home"
"""The value of some that a library sets itself when it is imported, in the process of the tests too."""


class Nursery:
    """Where workers are forked; it is begun with the first command that is asked for. `remembered` is where
    it finds what other processes of the tests worked out."""

    def __init__(self, remembered: Path) -> None:
        self.remembered = remembered
        self.server: subprocess.Popen[bytes] | None = None

    def command(self, *script: str) -> tuple[str, ...]:
        """The command of a worker: the project's own, or what a script of this path makes of it."""
        if not POSSIBLE:
            return _plainly(script)
        if self.server is None:
            self._begin()
        return (sys.executable, "-IS", __file__, "start", self.path, *script)

    def _begin(self) -> None:
        from qeval.base.waiting import briefly  # what stands in front of a worker imports nothing of it

        self.place = tempfile.TemporaryDirectory(prefix="qeval-")  # a socket's path must be short
        self.path = str(Path(self.place.name) / "socket")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self.path)
            listening.listen(64)
            self.server = subprocess.Popen(
                (sys.executable, __file__, "serve", self.remembered), stdin=listening, env=briefly(os.environ)
            )

    def close(self) -> None:
        """End it, and the workers that are left."""
        if self.server is not None:
            self.server.terminate()
            self.server.wait()
            self.place.cleanup()


def _plainly(script: Sequence[str]) -> tuple[str, ...]:
    return (sys.executable, *(script or ("-m", "qeval.score.worker")))


# --- in the process in front of a worker


def start(path: str, script: list[str]) -> NoReturn:
    """Have a worker forked, and end as it ends."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        told = json.dumps([script, os.getcwd(), dict(os.environ)]).encode()  # noqa: PTH109
        socket.send_fds(line, [_HEAD.pack(len(told))], [0, 1, 2])
        line.sendall(told)
        signal.signal(signal.SIGTERM, lambda *_: line.send(_END))
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nowhere, number)
        [code] = _STATUS.unpack(_exactly(line, _STATUS.size))
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _exactly(line: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = line.recv(size - len(found))
        if not more:
            os._exit(70)
        found += more
    return found


# --- in the process that forks


class Server:
    """One thread, so that forking is safe; it waits for callers, their workers, and its parent's end."""

    def __init__(self, listening: socket.socket, early: dict[str, str]) -> None:
        self.early = early
        self.selector = selectors.DefaultSelector()
        self.selector.register(listening, selectors.EVENT_READ, self.called)
        self.pids: set[int] = set()

    def run(self) -> None:
        parent = os.getppid()
        try:
            while os.getppid() == parent:
                for key, _ in self.selector.select(_PARENT_SECONDS):
                    if self.selector.get_map().get(key.fd) is key:  # what came before may have ended it
                        key.data(key.fileobj)
        finally:
            for pid in self.pids:
                os.kill(pid, signal.SIGKILL)

    def called(self, listening: socket.socket) -> None:
        """Fork a worker for a caller, and watch both."""
        line, _ = listening.accept()
        head, descriptors, *_ = socket.recv_fds(line, _HEAD.size, 3)
        if len(head) < _HEAD.size:  # it was ended meanwhile
            _close(line, descriptors)
            return
        told = line.recv(_HEAD.unpack(head)[0], socket.MSG_WAITALL)
        if len(told) < _HEAD.unpack(head)[0]:
            _close(line, descriptors)
            return
        pid = os.fork()
        if pid == 0:
            self.selector.close()
            line.close()
            listening.close()
            be_the_worker(self.early, descriptors, *json.loads(told))
        for descriptor in descriptors:
            os.close(descriptor)
        self.pids.add(pid)
        self.selector.register(line, selectors.EVENT_READ, lambda line: self.heard(line, pid))
        self.selector.register(os.pidfd_open(pid), selectors.EVENT_READ, lambda it: self.ended(it, line, pid))

    def heard(self, line: socket.socket, pid: int) -> None:
        """Hand on that the worker should end; kill it where nobody is left in front of it."""
        if line.recv(1) == _END:
            os.kill(pid, signal.SIGTERM)
            return
        os.kill(pid, signal.SIGKILL)
        self.selector.unregister(line)
        line.close()

    def ended(self, watched: int, line: socket.socket, pid: int) -> None:
        """Tell how the worker ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.pids.discard(pid)
        self.selector.unregister(watched)
        os.close(watched)
        if line.fileno() >= 0:
            self.selector.unregister(line)
            with contextlib.suppress(OSError):
                line.send(_STATUS.pack(code))
            line.close()


def _close(line: socket.socket, descriptors: Sequence[int]) -> None:
    line.close()
    for descriptor in descriptors:
        os.close(descriptor)


def be_the_worker(
    early: dict[str, str],
    descriptors: list[int],
    script: list[str],
    folder: str,
    environment: dict[str, str],
) -> NoReturn:
    """In the forked process: be as one that was just started with these standard streams."""
    import datasets
    import torch

    from qeval.score import clock, worker

    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(folder)
    if _early(environment) != early:
        os.execve(sys.executable, _plainly(script), environment)
    threads = environment.get(_THREADS, str(len(os.sched_getaffinity(0))))
    if environment.get(_THREADS) != os.environ.get(_THREADS):
        torch.set_num_threads(int(threads))
    os.environ.clear()
    os.environ.update(environment)
    datasets.config.HF_DATASETS_CACHE = environment.get(_DATASETS, datasets.config.HF_DATASETS_CACHE)
    clock.CLOCK.found, clock.CLOCK.since = {clock.STARTING: 0.0}, time.monotonic()
    sys.argv = [*(script or [worker.__file__])]
    code = 1
    try:
        if script:
            runpy.run_path(script[0], run_name="__main__")
        else:
            worker.main()
        code = 0
    except BaseException:  # noqa: BLE001 - as Python itself does
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_EARLY) and name not in _LATE and not value.startswith(_SET)
    }


def serve(remembered: Path) -> None:
    """Import what a worker needs, and fork workers until the parent is gone."""
    from remembered import remember

    from qeval.score import worker
    from qeval.score.harness import catalogue

    early, listening = _early(os.environ), socket.socket(fileno=os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    worker.import_libraries()
    remember(setattr, remembered)
    catalogue.known_tasks()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    Server(listening, early).run()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        start(sys.argv[2], sys.argv[3:])
