"""A job on another machine: what it says of itself, what comes back, and how a node tells what is wrong."""

from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from fake_ray_path import FAKE_RAY

from qeval.ask.order import Order
from qeval.base.errors import QevalError
from qeval.base.messages import REFUTED, Done, Failed, Finished, Job
from qeval.base.places import tasks_dir
from qeval.base.records import Scheme, Suite, Task, Variant
from qeval.base.settings import Settings
from qeval.run import remote
from qeval.run.executors import ray
from qeval.run.remote import Said, Sent
from qeval.run.versions import versions
from qeval.store.leases import Holder
from qeval.store.runs import RunDir
from qeval.store.work import Work

HOST = socket.gethostname()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "runs" / "r").mkdir(parents=True)
    return Job(
        runs_dir=str(tmp_path / "runs"),
        run_id="r",
        variant=Variant("rtn", "toy[items=5]", Scheme("rtn")),
        identity={"model": "toy"},
        context={},
        tasks=(Task("piqa", "acc"),),
        settings=Settings(),
        tasks_dir=str(tasks_dir()),
        cache_dir=str(tmp_path),
        log=str(tmp_path / "runs" / "r" / "logs" / "rtn.log"),
        holder="me",
    )


def place_of(job: Job) -> RunDir:
    return RunDir(Path(job.runs_dir) / job.run_id)


def said(sent: Sent) -> list[Said]:
    lines = remote.carry_out(msgspec.msgpack.encode(sent))
    return [msgspec.msgpack.decode(line, type=Said) for line in lines]


def failure(sent: Sent) -> str:
    [one] = said(sent)
    assert isinstance(one.event, Failed)
    assert not one.event.lost, "it would be tried again"
    return f"{one.event.message} {one.event.hint}"


@pytest.mark.parametrize(("name", "has"), [("qeval", "0.0"), ("Python", "2.7"), ("transformers", "1")])
def test_a_node_with_another_version_names_both(job: Job, name: str, has: str) -> None:
    here = versions()[name]
    assert f"{name} {here} instead of {has}" in failure(Sent(job, {**versions(), name: has}))


def test_a_node_that_does_not_see_the_store_says_so(job: Job, tmp_path: Path) -> None:
    place = place_of(job)
    mark = remote.marked(place)
    assert remote.marked(place) == mark
    elsewhere = msgspec.structs.replace(job, runs_dir=str(tmp_path / "nowhere"))
    for sent in (Sent(job, versions(), "another"), Sent(elsewhere, versions(), mark)):
        assert failure(sent).startswith(f"{HOST} does not see the run in ")


def _full(path: Path, _: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


@pytest.mark.parametrize("where", ["the temporary folder", "its files", "its sign of life"])
def test_a_node_whose_disk_is_full_says_so(job: Job, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    mark = remote.marked(place_of(job)) if where == "its sign of life" else ""
    if where == "the temporary folder":
        monkeypatch.setattr(tempfile, "mkdtemp", lambda **_: _full(Path("/tmp"), b""))
    else:
        monkeypatch.setattr(remote, "write_atomic", _full)
        monkeypatch.setattr("qeval.store.leases.write_atomic", _full)
    text = failure(Sent(job, versions(), mark, {"run.json": b"{}"}))
    assert HOST in text
    assert "full" in text or "no room" in text


@pytest.mark.parametrize("name", ["../run.json", "/etc/passwd", "cells/../../x"])
def test_files_from_elsewhere_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(QevalError, match="sent a file called"):
        remote.unpack({name: b""}, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_in_a_shared_store_the_lines_are_the_events_and_the_holder_lives_meanwhile(job: Job) -> None:
    place = place_of(job)
    lines = remote.carry_out(msgspec.msgpack.encode(Sent(job, versions(), remote.marked(place))))
    first = next(lines)
    assert [one.name for one in Work(place.work).holders.at_work()] == ["me"]
    events = [msgspec.msgpack.decode(line, type=Said) for line in (first, *lines)]
    assert isinstance(events[-1].event, Done)
    assert all(one.files == {} for one in events)
    assert Work(place.work).holders.state("me") == "stopped"
    [cell] = [one.event.cell for one in events if isinstance(one.event, Finished)]
    assert len(place.samples(cell)) == 5


@pytest.mark.slow
def test_closed_in_the_middle_it_leaves_no_process(job: Job) -> None:
    slow = msgspec.structs.replace(job, variant=Variant("rtn", "toy[items=5,delay=60]", Scheme("rtn")))
    lines = remote.carry_out(msgspec.msgpack.encode(Sent(slow, versions(), remote.marked(place_of(job)))))
    next(lines)
    lines.close()
    assert Work(place_of(job).work).holders.state("me") == "stopped"


@pytest.mark.slow
def test_without_a_shared_store_what_is_finished_comes_back_and_is_not_scored_again(job: Job) -> None:
    place = place_of(job)
    first = said(Sent(job, versions()))
    [finished] = [one for one in first if isinstance(one.event, Finished)]
    assert isinstance(finished.event, Finished)
    key = finished.event.cell.key
    assert {f"cells/{key}/cell.json", f"cells/{key}/samples.parquet"} <= set(finished.files)
    assert first[-1].event is None
    assert not list(place.path.glob("cells/*"))
    for one in first:
        ray._taken_in(msgspec.msgpack.encode(one), job, place)
    assert len(place.samples(finished.event.cell)) == 5
    assert Path(job.log).is_file()
    second = said(Sent(job, versions(), files=remote.pack(place, finished.event.cell)))
    assert type(second[0].event) is Finished, "it was found, not scored"


def test_a_lost_machines_leases_are_anybodys_at_once(job: Job) -> None:
    holders = Work(place_of(job).work).holders
    holders.write(Holder("me", "far", "far/0/1", 1))
    assert holders.state("me") == "at work"
    remote.lost(place_of(job), "me")
    assert holders.state("me") == "died"
    remote.lost(place_of(job), "nobody")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`cluster(*nodes)`: what the stand-in's nodes have."""
    monkeypatch.syspath_prepend(FAKE_RAY)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def has(*nodes: dict[str, float]) -> None:
        stand_in = importlib.import_module("ray")
        found = [{"Alive": True, "Resources": one} for one in nodes]
        total = {kind: sum(one.get(kind, 0) for one in nodes) for one in nodes for kind in one}
        monkeypatch.setattr(stand_in, "nodes", lambda: found)
        monkeypatch.setattr(stand_in, "cluster_resources", lambda: total)

    yield has
    sys.modules.pop("ray", None)


def an_order(place: Path, *, gpus: int = 1, device: str = "auto", **asked: object) -> Order:
    variant = Variant("v", "some/model", Scheme("fp16"))
    settings = Settings(gpus=gpus, device=device)
    return Order((variant,), "v", Suite("s", ()), settings, place, place, executor="ray", **asked)


@pytest.mark.parametrize(
    ("asked", "workers"),
    [({}, 6), ({"gpus": 2}, 3), ({"gpus": 3}, 1), ({"device": "cpu"}, 9), ({"workers": 2}, 2)],
)
def test_a_worker_sits_wherever_a_node_has_room(
    cluster: Callable[..., None], tmp_path: Path, asked: dict[str, int], workers: int
) -> None:
    cluster({"CPU": 4, "GPU": 4}, {"CPU": 4, "GPU": 2}, {"CPU": 1})
    with ray.opened(an_order(tmp_path, **asked)) as seats:
        assert len(seats.all) == workers


@pytest.mark.parametrize(
    ("nodes", "asked", "says"),
    [
        (({"GPU": 2.0}, {"GPU": 2.0}), {"gpus": 4}, "No node of the cluster has 4 GPUs"),
        (({"CPU": 2.0},), {"gpus": 2}, "no GPU for --gpus-per-variant 2"),
        (({"CPU": 2.0},), {"device": "cuda"}, "no GPU for --device cuda"),
        (({"CPU": 2.0},), {"threads": 4, "device": "cpu"}, "No node of the cluster has 4 CPUs"),
        (({"CPU": 2.0},), {"ray_address": "ray://head:10001"}, "ray job submit"),
        (({"CPU": 2.0},), {"ray_address": "head"}, "is not the address"),
        (({"CPU": 2.0},), {"ray_address": "127.0.0.1:1"}, "No cluster of Ray answers"),
    ],
)
def test_what_a_cluster_cannot_do_is_told_before_anything_is_scored(
    cluster: Callable[..., None], tmp_path: Path, nodes: object, asked: dict[str, object], says: str
) -> None:
    cluster(*nodes)
    with pytest.raises(QevalError) as refused, ray.opened(an_order(tmp_path, **asked)):
        raise AssertionError("it was let in")
    assert says in str(refused.value)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", None])
def test_a_port_at_which_no_ray_listens_is_told_in_time(
    cluster: Callable[..., None], tmp_path: Path, said: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: it takes the connection, and is silent."""
    cluster({"CPU": 2.0})
    monkeypatch.setattr(ray, "_GREETING_SECONDS", 0.2)
    monkeypatch.setattr(ray, "_PROBE", "raise SystemExit('Ray was asked')")
    with (
        listening(said) as port,
        pytest.raises(QevalError) as refused,
        ray.opened(an_order(tmp_path, ray_address=f"127.0.0.1:{port}")),
    ):
        raise AssertionError("it was let in")
    assert f"No cluster of Ray answers at 127.0.0.1:{port}." in str(refused.value)


def test_a_port_at_which_ray_may_listen_is_asked_by_ray(
    cluster: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster({"CPU": 2.0})
    monkeypatch.setattr(ray, "_PROBE", "print('Ray was asked'); raise SystemExit(4)")
    with (
        listening(bytes((0, 0, 18, 4, 0, 0, 0, 0, 0))) as port,
        pytest.raises(QevalError) as refused,
        ray.opened(an_order(tmp_path, ray_address=f"127.0.0.1:{port}")),
    ):
        raise AssertionError("it was let in")
    assert "Ray was asked" in str(refused.value)


@pytest.mark.parametrize("word", ["1", "true", "True", "TRUE"])
def test_a_port_that_speaks_tls_is_not_greeted(
    cluster: Callable[..., None], tmp_path: Path, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray takes any of these for yes; with true it was greeted as if it spoke plainly."""
    cluster({"CPU": 2.0})
    monkeypatch.setenv("RAY_USE_TLS", word)
    monkeypatch.setattr(ray, "_PROBE", "print('Ray was asked'); raise SystemExit(4)")
    with (
        listening(b"") as port,
        pytest.raises(QevalError, match="Ray was asked"),
        ray.opened(an_order(tmp_path, ray_address=f"127.0.0.1:{port}")),
    ):
        raise AssertionError("it was let in")


def test_a_port_that_answers_a_letter_at_a_time_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each letter was given the whole time anew."""
    monkeypatch.setattr(ray, "_GREETING_SECONDS", 0.2)
    waits: list[float] = []

    class Door:
        """It takes half of the time for each letter."""

        def settimeout(self, seconds: float) -> None:
            waits.append(seconds)

        def sendall(self, greeting: bytes) -> None:
            assert greeting == ray._GREETING

        def recv(self, _: int) -> bytes:
            if waits[-1] < 0.1:
                raise TimeoutError
            time.sleep(0.1)
            return b"\0"

    with pytest.raises(TimeoutError):
        ray._speaks(Door())  # type: ignore[arg-type]
    assert waits[0] == 0.2
    assert all(after < before for before, after in itertools.pairwise(waits))


@pytest.mark.parametrize("name", ["_DOOR_SECONDS", "_GREETING_SECONDS"])
def test_a_silent_port_is_told_within_ten_seconds(name: str) -> None:
    assert getattr(ray, name) >= 3
    assert ray._DOOR_SECONDS + ray._GREETING_SECONDS < 10


@contextlib.contextmanager
def listening(said: bytes | None) -> Iterator[int]:
    """A port that says this to whoever comes, then ends the connection; None: it holds it, in silence."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                door, _ = server.accept()
                with door:
                    door.settimeout(5)
                    door.sendall(said or b"")
                    while said is None and door.recv(64):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_without_ray_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(QevalError, match="needs ray") as refused, ray.opened(an_order(tmp_path)):
        raise AssertionError("it was let in")
    assert "pip install '.[ray]'" in refused.value.hint


def test_what_a_node_without_qeval_says_is_a_failure(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qeval.run.remote", None)
    [line] = ray._on_node()(b"")
    monkeypatch.undo()
    event = ray._taken_in(line, job, place_of(job))
    assert isinstance(event, Failed)
    assert f"{HOST} has no qeval of this version" in event.message


def test_with_gpus_a_job_calculates_on_the_first_and_without_with_the_runs_threads(job: Job) -> None:
    planned = msgspec.structs.replace(job, threads=3)
    there = remote._here(planned, 2)
    assert (there.settings.device, there.threads, there.environment) == ("cuda:0", None, {})
    there = remote._here(planned, 0)
    assert (there.settings.device, there.threads) == ("auto", 3)
    assert there.environment == {"OMP_NUM_THREADS": "3"}


def test_a_failure_begins_as_it_does_on_one_machine() -> None:
    failed = remote.placed(Failed(f"{REFUTED}: 3 of 8.", "Look."))
    assert isinstance(failed, Failed)
    assert failed.message.startswith(REFUTED)
    assert failed.hint == f"Look. That was on {HOST}."
