"""A Ray cluster: one task for each worker, on whatever node has room."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from qeval.base import installed
from qeval.base.errors import MissingPackageError, QevalError, UsageError
from qeval.base.messages import Event, Failed, Finished, Job
from qeval.base.records import Result
from qeval.run.workers import Listener, after, keep_in_log

if TYPE_CHECKING:  # the list of executors is imported for every help
    from qeval.ask.order import Order
    from qeval.run.remote import Sent
    from qeval.run.seats import Seats
    from qeval.store.runs import RunDir

_DOOR_SECONDS, _GREETING_SECONDS = 3.0, 5.0
"""How long a machine may take to open a connection, and then to say what it speaks there."""
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What opens a connection of HTTP/2 (RFC 9113, section 3.4), over which Ray speaks: the preface, and empty
settings. The other side must answer with its own settings, a frame of type 4."""
_FRAME = 9
"""Bytes of the head of a frame; its type is the fourth."""
_LEAST_SECONDS = 0.001
"""A socket takes 0 for no waiting at all."""
_PROBE_SECONDS = 25.0
_PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
except Exception as error:
    sys.stdout.write(str(error))
    sys.stdout.flush()
    import os
    os._exit(4)
"""
"""Joins a cluster in a process that can be killed: Ray itself tries for minutes where nobody answers."""


@dataclass
class _Session:
    """What this process has of Ray: the module, how workers are asked for, and the tasks at work."""

    ray: Any
    shared: bool = True
    gpus: int = 0
    at_work: dict[int, tuple[Any, Job]] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)


_open: list[_Session] = []


@contextlib.contextmanager
def opened(order: Order) -> Iterator[Seats]:
    """Connected to a cluster, or with one of this machine's own: a seat for each worker that it has room for.

    Raises QevalError where there is no such cluster, or one of another version.
    """
    from qeval.run.seats import Seat, Seats

    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, order.ray_address)
    try:
        gpus = _gpus(ray, order)
        _open.append(_Session(ray, order.shared_store, gpus))
        room = _room(ray, "GPU", gpus) if gpus else _room(ray, "CPU", order.threads or 1)
        if not room:
            what = f"{gpus} GPUs" if gpus else f"{order.threads or 1} CPUs"
            raise QevalError(f"No node of the cluster has {what} for a worker.", "Check it with: ray status")
        yield Seats(tuple(Seat(number) for number in range(order.workers or room)))
    finally:
        del _open[:]
        if ours:
            ray.shutdown()


def _gpus(ray: Any, order: Order) -> int:
    """How many GPUs a worker takes: none where the cluster has none. Raises UsageError where the order names
    a GPU and there is none."""
    from qeval.load.toy import is_toy

    device = order.settings.device
    if is_toy(order.variants[0].model) or device == "cpu":
        return 0
    if ray.cluster_resources().get("GPU"):
        return order.settings.gpus
    if device != "auto" or order.settings.gpus > 1:
        asked = f"--device {device}" if device != "auto" else f"--gpus-per-variant {order.settings.gpus}"
        raise UsageError(f"The cluster has no GPU for {asked}.", "Leave it out.")
    return 0


def _room(ray: Any, kind: str, each: int) -> int:
    """How many workers fit that take so much of a kind; one does not spread over nodes."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(int(node.get(kind, 0) // each) for node in nodes)


def execute(job: Job, listen: Listener) -> Result:
    """Score in a task of the cluster, in a fresh process there; a lost node is as a process that died."""
    from qeval.store.runs import RunDir

    if not _open:
        ray = _ray()
        if not ray.is_initialized():
            _connect(ray, None)
        _open.append(_Session(ray))
    session = _open[-1]
    place = RunDir(Path(job.runs_dir) / job.run_id)
    holder = f"{job.variant.name[:20]}-{uuid.uuid4().hex[:12]}"
    holder = "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in holder)
    job = msgspec.structs.replace(job, holder=holder if session.shared else "")
    sent = _sent(session, job, place)
    asked = {"num_cpus": job.threads or 1, "num_gpus": session.gpus}
    # A process for each task gives its memory back. Ray's own retries would tell the events again; the pool
    # has another worker take over what a lost node was at.
    task = session.ray.remote(max_calls=1, max_retries=0, num_returns="streaming", **asked)(_on_node())
    said = task.remote(msgspec.msgpack.encode(sent))
    with session.guard:
        session.at_work[id(said)] = (said, job)
    try:
        return _followed(session, said, job, place, listen)
    except BaseException:
        _cancel(session, said)
        raise
    finally:
        with session.guard:
            del session.at_work[id(said)]


def end(which: Callable[[Job], bool]) -> None:
    """Have the tasks of such jobs end; each comes back as one that died."""
    for session in _open:
        with session.guard:
            found = [said for said, job in session.at_work.values() if which(job)]
        for said in found:
            with contextlib.suppress(Exception):
                session.ray.cancel(said)


def _cancel(session: _Session, said: Any) -> None:
    """Have a task end, and wait for it."""
    with contextlib.suppress(Exception):
        session.ray.cancel(said)
    with contextlib.suppress(BaseException):
        for line in said:
            session.ray.get(line)


def _on_node() -> Callable[[bytes], Iterator[bytes]]:
    """What a task does: a function that travels itself, so that a node without qeval can say so."""

    def on_node(sent: bytes) -> Iterator[bytes]:
        try:
            from qeval.run.remote import carry_out
        except ImportError as error:
            import socket

            yield f"{socket.gethostname()} has no qeval of this version ({error})".encode()
            return
        yield from carry_out(sent)

    return on_node


def _sent(session: _Session, job: Job, place: RunDir) -> Sent:
    from qeval.base import reading
    from qeval.run import remote
    from qeval.run.keeping import result_of
    from qeval.run.remote import Sent
    from qeval.run.versions import versions

    if session.shared:
        return Sent(job, versions([job]), remote.marked(place), gpus=session.gpus)
    files: dict[str, bytes] = {}
    with contextlib.suppress(QevalError):
        run = place.read()
        needed = {job.variant.name, *([run.baseline] if job.policy is not None else [])}
        for name in needed:
            files |= remote.pack(place, *result_of(run, name).cells)
        files["run.json"] = reading.content(place.path / "run.json", None)
    return Sent(job, versions([job]), files=files, gpus=session.gpus)


def _followed(session: _Session, said: Any, job: Job, place: RunDir, listen: Listener) -> Result:
    from qeval.run import remote

    result = Result(variant=job.variant, status="partial")
    failed = None
    try:
        for line in said:
            event = _taken_in(session.ray.get(line), job, place)
            if event is not None:
                result = after(event, result)
                listen(event)
        if result.status == "partial":
            failed = Failed(
                "The task ended before it was done.", f"Its last words are in {job.log}.", lost="process"
            )
    except Exception as error:
        failed = _why(session.ray, error)
        if failed is None:
            raise
    if failed is not None:
        remote.lost(place, job.holder)
        if result.status == "partial":
            listen(failed)
            result = after(failed, result)
    return result


def _taken_in(line: bytes, job: Job, place: RunDir) -> Event | None:
    """The event of a line, once what came with it is in the store."""
    from qeval.base.files import remove
    from qeval.run import remote
    from qeval.run.remote import Said
    from qeval.store.runs import RunDir

    try:
        said = msgspec.msgpack.decode(line, type=Said)
    except msgspec.MsgspecError:
        return Failed(f"{line.decode('utf-8', 'replace')}.", "Install qeval on every node of the cluster.")
    if said.event is None:
        keep_in_log(said.log, job)
    if said.files and isinstance(said.event, Finished):
        other = RunDir(place.work / "incoming" / uuid.uuid4().hex)
        try:
            remote.unpack(said.files, other.path)
            place.adopt(other, said.event.cell)
        finally:
            remove(other.path)
    return said.event


def _why(ray: Any, error: Exception) -> Failed | None:
    """What became of a task that ended in an error of Ray's; None for an error of ours."""
    known = ray.exceptions
    if isinstance(error, QevalError):
        return Failed(error.message, error.hint)
    if isinstance(error, known.TaskCancelledError) or "KeyboardInterrupt" in str(error):
        return Failed("The task was ended.", lost="process")
    if isinstance(error, known.OutOfMemoryError):
        return Failed("The node ran out of memory, and Ray ended the task.", lost="memory")
    if isinstance(error, known.RayTaskError):
        return Failed(
            f"The task failed: {_first_line(str(error.cause))}", "The nodes may differ in what is installed."
        )
    if isinstance(error, known.RayError):
        return Failed(f"The node or its process was lost ({type(error).__name__}).", lost="process")
    return None


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason told"])[0][:300]


# --- the cluster


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError("--executor ray needs ray.", installed.remedy("ray")) from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Connect to the cluster at an address, to the one that is known here, or to one that is started here.

    Ray takes SIGTERM for itself; it is given back.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None and "://" in address:
        raise UsageError(
            f"{address} is an address for Ray's client, which cannot follow tasks.",
            "Run qeval on the cluster: ray job submit -- qeval run ...",
        )
    if address not in {None, "auto", "local"}:
        _probe(str(address))
    heard = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise QevalError(
            f"No cluster of Ray can be joined: {_first_line(str(error))}", "Check it with: ray status"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread() and heard is not None:
            signal.signal(signal.SIGTERM, heard)


def _speaks(door: socket.socket) -> bool:
    """Whether the other side speaks HTTP/2, as Ray's does: others would keep Ray waiting. Raises OSError."""
    until = time.monotonic() + _GREETING_SECONDS
    door.settimeout(_GREETING_SECONDS)
    door.sendall(_GREETING)
    said = b""
    while len(said) < _FRAME and (more := door.recv(_FRAME - len(said))):
        said += more
        door.settimeout(max(until - time.monotonic(), _LEAST_SECONDS))
    return said[3:4] == b"\x04"


def _encrypted() -> bool:
    """Whether Ray speaks TLS, by the words that it takes for yes itself: then the greeting is none."""
    return os.environ.get("RAY_USE_TLS", "").strip().lower() in {"1", "true"}


def _probe(address: str) -> None:
    """Raise QevalError where no cluster of this version answers at the address."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UsageError(f"{address!r} is not the address of a Ray cluster.", "Write HOST:PORT, or auto.")
    dead = QevalError(
        f"No cluster of Ray answers at {address}.", "Check --ray-address, and that it is up: ray status"
    )
    try:
        with socket.create_connection((host, int(port)), _DOOR_SECONDS) as door:
            if not _encrypted() and not _speaks(door):
                raise dead
        done = subprocess.run(
            (sys.executable, "-c", _PROBE, address),
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, OverflowError, subprocess.TimeoutExpired) as error:
        raise dead from error
    if done.returncode:
        said = " ".join(done.stdout.split()) or "it does not answer."
        raise QevalError(
            f"The cluster at {address} cannot be joined: {said[:500]}",
            "Ray and Python must have the same versions here and on every node.",
        )
