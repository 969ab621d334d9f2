"""A real Slurm of one node, started and stopped by root on this machine, for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("sbatch", "squeue", "scancel", "slurmctld", "slurmd", "munged")
"""On Debian: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge."""


def missing() -> list[str]:
    """What of Slurm is not installed; "root" where it cannot be started."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    found = [name for name in NEEDED if shutil.which(name, path=path) is None]
    return found if os.geteuid() == 0 else [*found, "root"]


@contextmanager
def cluster(home: Path) -> Iterator[dict[str, str]]:
    """A cluster at work; yields what must be in the environment of its commands."""
    host = socket.gethostname().partition(".")[0]
    munge = None
    if not _munge_answers():
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        munge = subprocess.Popen(("runuser", "-u", "munge", "--", "/usr/sbin/munged", "--foreground"))
    conf = home / "slurm.conf"
    conf.write_text(_conf(host, home, _free_port(), _free_port()))
    there = {"SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _wait_for(_munge_answers, "munged")
        for words in (("slurmctld", "-D"), ("slurmd", "-D", "-N", host)):
            with (home / f"{words[0]}.log").open("wb") as log:
                daemons.append(subprocess.Popen(words, env={**os.environ, **there}, stdout=log, stderr=log))
        _wait_for(lambda: "idle" in _said(("sinfo", "--noheader", "--format=%T"), there), "slurmd")
        yield there
    finally:
        _said(("scancel", "--user=root"), there)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        if munge is not None:
            munge.terminate()
            munge.wait(30)


def _munge_answers() -> bool:
    return Path("/run/munge/munge.socket.2").exists() and bool(_said(("munge", "--no-input"), {}))


def _said(words: tuple[str, ...], there: dict[str, str]) -> str:
    done = subprocess.run(words, env={**os.environ, **there}, capture_output=True, text=True, check=False)
    return done.stdout


def _wait_for(what, name: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, f"{name} does not answer"
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _conf(host: str, home: Path, controller: int, node: int) -> str:
    return f"""
ClusterName=qeval
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
