"""The contract of every executor: events in order, cells on disk, a crash is a Result and not a crash."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import msgspec
import psutil
import pytest
from fake_ray_path import FAKE_RAY

from qeval.ask.order import Order
from qeval.base.messages import Done, Event, Failed, Finished, Job, Todo
from qeval.base.places import tasks_dir
from qeval.base.records import Result, Scheme, Suite, Task, Variant
from qeval.base.settings import Settings
from qeval.run import executors, identity, workers
from qeval.run.executors import EXECUTORS, SUMMARIES, Execute, ray
from qeval.store.runs import Store

pytestmark = pytest.mark.slow

TASKS = (Task("arc_challenge", "acc_norm"), Task("hellaswag", "acc_norm"))


PAGE = (Path(__file__).parents[2] / "docs" / "extend" / "executor.md").read_text("utf-8")
[EXAMPLE] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The executor on the page, as a file in the folder of the others."""
    (tmp_path / "gently.py").write_text(EXAMPLE)
    monkeypatch.setattr(executors, "__path__", [*executors.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"{executors.__name__}.gently", raising=False)
    return executors._modules(executors.__path__)["gently"]


@pytest.fixture(params=[*EXECUTORS, pytest.param("the example", marks=pytest.mark.slow)])
def execute(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Execute]:
    if request.param == "ray":  # a stand-in
        monkeypatch.syspath_prepend(FAKE_RAY)
        for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
            monkeypatch.delitem(sys.modules, name)
    if request.param in EXECUTORS:
        yield EXECUTORS[request.param]
    else:
        example: ModuleType = request.getfixturevalue("example")
        yield example.execute
    if request.param == "ray":
        del ray._open[:]
        sys.modules.pop("ray", None)


def a_job(runs_dir: Path, model: str = "toy[items=20]", tasks: tuple[Task, ...] = TASKS) -> Job:
    return Job(
        runs_dir=str(runs_dir),
        run_id="r",
        variant=Variant("bnb4", model, Scheme("bnb4")),
        identity={"model": model},
        context={},
        tasks=tasks,
        settings=Settings(),
        tasks_dir=str(tasks_dir()),
        cache_dir=str(runs_dir),
        log=str(runs_dir / "r" / "logs" / "bnb4.log"),
    )


def test_a_variant_is_scored_and_told_of_in_order_and_a_second_time_found(execute, runs_dir: Path) -> None:
    events: list[Event] = []
    result = execute(a_job(runs_dir), events.append)
    assert result.status == "done"
    assert [cell.task.name for cell in result.cells] == ["arc_challenge", "hellaswag"]
    kinds = [type(event) for event in events]
    assert kinds[0] is Todo
    assert kinds[-1] is Done
    assert kinds.count(Finished) == 2
    place = Store(runs_dir).run_dir("r")
    for cell in result.cells:
        assert len(place.samples(cell)) == cell.n == 20
    second = execute(a_job(runs_dir), events.append)
    assert second.cells == result.cells
    assert Todo((), 2) in events


def test_a_failure_is_a_result_with_a_sentence(execute, runs_dir: Path) -> None:
    result = execute(a_job(runs_dir, "toy[fail=bnb4]"), lambda _: None)
    assert result.status == "failed"
    assert "told to fail" in str(result.error)
    assert "Traceback" in (runs_dir / "r" / "logs" / "bnb4.log").read_text()


def _descendants() -> set[psutil.Process]:
    """The processes that this one has begun, through others too, and that have not ended."""
    return {process for process in psutil.Process().children(recursive=True) if _lives(process)}


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was found
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def test_a_killed_process_keeps_what_it_finished(execute, runs_dir: Path) -> None:
    before = _descendants()

    def kill(event: Event) -> None:
        if isinstance(event, Finished):
            for process in _descendants() - before:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    names = [f"mmlu_{name}" for name in ("anatomy", "astronomy", "virology", "sociology", "prehistory")]
    tasks = (*TASKS, *(Task(name, "acc") for name in names))  # a busy machine may finish some meanwhile
    job = a_job(runs_dir, "toy[items=20,delay=0.5]", tasks)
    events: list[Event] = []
    result = execute(job, lambda e: (events.append(e), kill(e)))
    assert result.status == "failed"
    assert "killed" in str(result.error)
    kept = [cell.task.name for cell in result.cells]
    assert kept == [event.cell.task.name for event in events if isinstance(event, Finished)]
    assert kept == [task.name for task in tasks][: len(kept)]
    assert 0 < len(kept) < len(tasks)
    assert isinstance(events[-1], Failed)


def test_stopping_the_listener_stops_the_process(execute, runs_dir: Path) -> None:
    def stop(_: Event) -> None:
        raise KeyboardInterrupt

    before = _descendants()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        execute(a_job(runs_dir, "toy[items=20,delay=90]"), stop)
    assert time.monotonic() - start < 60
    left = psutil.wait_procs(_descendants() - before, 60)[1]
    assert not [process for process in left if _lives(process)], "what was started is still at work"


def test_two_at_once_share_a_store(execute, runs_dir: Path) -> None:
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(execute(a_job(runs_dir), lambda _: None)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.status for result in results] == ["done"] * 2
    scores = {tuple(cell.score for cell in result.cells) for result in results}
    assert len(scores) == 1


def test_a_suite_of_groups(execute, runs_dir: Path) -> None:
    suite = Suite("s", (Task("mmlu", "acc", limit=2),))
    result = execute(a_job(runs_dir, tasks=suite.tasks), lambda _: None)
    assert len(result.cells) == 57
    assert {cell.task.group for cell in result.cells} == {"mmlu"}


def test_an_executor_is_a_file_and_its_first_line_is_its_help(example: ModuleType) -> None:
    assert executors._summary(example) == "A process on this machine that gives way to others"
    assert SUMMARIES.keys() == {*EXECUTORS, "slurm"}, "one that is no function hands a whole run over"
    assert all(SUMMARIES.values())


def test_the_command_line_offers_every_executor_and_takes_the_one_that_is_named(
    qeval, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "--model", "toy[items=5]", "--schemes", "fp16", "--tasks", "arc_easy")
    for command, offered in (("run", SUMMARIES), ("cost", EXECUTORS)):
        said = _flat(qeval(command, "--help").stdout)
        assert all(f"{name}: {SUMMARIES[name]}" in said for name in offered)
    assert "local" in qeval(*words, "--executor", "loacl", code=2).stderr
    jobs: list[Job] = []
    monkeypatch.setitem(
        EXECUTORS, "local", lambda job, _: jobs.append(job) or Result(variant=job.variant, status="done")
    )
    qeval(*words, "--executor", "local")
    assert [job.variant.name for job in jobs] == ["fp16"]


def _flat(text: str) -> str:
    return " ".join(text.split())


def test_where_a_variant_is_scored_is_no_part_of_what_it_is(runs_dir: Path) -> None:
    order = Order(
        (Variant("v", "toy", Scheme("fp16")),), "v", Suite("s", TASKS), Settings(), runs_dir, runs_dir
    )
    there = replace(order, executor="elsewhere")
    assert identity.run_id(order, {}, {}) == identity.run_id(there, {}, {})
    assert not {name for name in Job.__struct_fields__ if "executor" in name}


def test_a_command_that_is_not_there_is_a_result_too(runs_dir: Path) -> None:
    events: list[Event] = []
    result = workers.score_in(("no-such-command",), a_job(runs_dir), events.append)
    assert result.status == "failed"
    assert events == [Failed("no-such-command cannot be started: No such file or directory.")]


def _shell(*before: str, after: str = "", start: str = "") -> tuple[str, ...]:
    """A shell that does something, then starts the worker, or with `start="exec"` becomes it."""
    return ("sh", "-c", "\n".join((*before, f"{start} {shlex.join(workers.WORKER)}", after)))


@pytest.mark.parametrize("how", ["becomes", "starts"])
def test_what_a_shell_prints_around_the_worker_goes_to_the_log(runs_dir: Path, how: str) -> None:
    start, after = ("exec", "") if how == "becomes" else ("", "printf 'All done.\\nBye'")
    before = ("echo Loading cuda/12.4", 'echo \'{"type": "module"}\'', "echo 17", "printf '\\377\\n\\n'")
    events: list[Event] = []
    job = a_job(runs_dir)
    result = workers.score_in(_shell(*before, start=start, after=after), job, events.append)
    assert result.status == "done"
    assert [cell.task.name for cell in result.cells] == ["arc_challenge", "hellaswag"]
    assert isinstance(events[-1], Done)
    log = Path(job.log).read_bytes()
    assert log.startswith(b'Loading cuda/12.4\n{"type": "module"}\n17\n\xff\n\n')
    assert log.endswith(b"All done.\nBye") == (how == "starts")


@pytest.mark.parametrize(
    "command",
    [
        _shell("echo No such module.; exit 1"),
        _shell("cat > /dev/null"),  # what reads standard input takes the job from the worker
        ("sh", "-c", "echo Nothing to do."),
    ],
)
def test_a_worker_that_never_tells_its_end_fails_the_variant(runs_dir: Path, command) -> None:
    events: list[Event] = []
    result = workers.score_in(command, a_job(runs_dir), events.append)
    assert result.status == "failed"
    assert "before it was done" in str(result.error)
    assert len(events) == 1
    assert isinstance(events[0], Failed)


def test_lines_from_elsewhere_are_followed_without_a_log_yet(runs_dir: Path) -> None:
    job = a_job(runs_dir)
    result = workers.follow([b"Welcome\n", b'{"type":"note","text":"x"}\n', b'{"type":"done"}'], job, print)
    assert result.status == "partial"
    assert Path(job.log).read_bytes() == b'Welcome\n{"type":"done"}'


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("kill -9 $$", "killed, most often because memory ran out"),
        ("exit 137", "killed, most often because memory ran out"),  # a shell tells so of its command
        ("kill -11 $$", "died of SIGSEGV"),
        ("exit 139", "died of SIGSEGV"),
        ("exit 3", "ended with code 3 before it was done"),
        ("exit 255", "ended with code 255 before it was done"),
        ("echo '[\"half a'; kill -9 $$", "killed"),
    ],
)
def test_each_end_has_its_sentence(runs_dir: Path, end: str, says: str) -> None:
    end = end.replace("echo", "printf %s")
    result = workers.score_in(("sh", "-c", end), a_job(runs_dir), lambda _: None)
    assert result.status == "failed"
    assert says in str(result.error)
    assert str(runs_dir) in str(result.error)


def test_a_worker_that_got_ready_ahead_scores_as_any_other(tmp_path: Path) -> None:
    from qeval.run.executors import local

    job = msgspec.structs.replace(a_job(tmp_path), log=str(tmp_path / "there" / "is" / "no.log"))
    with executors.ahead("local") as prepare:
        prepare({})
        prepare({})  # one is enough
        [process] = local._waiting.processes.values()
        result = EXECUTORS["local"](job, lambda _: None)
    assert process.poll() == 0
    assert result.status == "done"
    assert len(result.cells) == len(TASKS)
    assert result.seconds["imports"] > 0
    assert Path(job.log).is_file()


@pytest.mark.parametrize("dead", [False, True])
def test_a_worker_that_nobody_needs_ends(tmp_path: Path, dead: bool) -> None:
    from qeval.run.executors import local

    with executors.ahead("local") as prepare:
        prepare({})
        [process] = local._waiting.processes.values()
        if dead:  # then another is started
            process.kill()
            process.wait()
            assert EXECUTORS["local"](a_job(tmp_path), lambda _: None).status == "done"
    assert process.poll() is not None
    assert not local._waiting.processes


def test_an_executor_that_is_not_the_files_own_gets_nothing_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    from qeval.run.executors import local

    monkeypatch.setitem(EXECUTORS, "local", lambda job, _: Result(job.variant, "done"))
    with executors.ahead("local") as prepare:
        prepare({})
        assert not local._waiting.processes
