"""The wheel holds everything: installed elsewhere, suites, own tasks and templates are inside."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_nothing_that_the_package_reads_is_missing(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"qeval/{p.relative_to(ROOT / 'qeval')}" for p in (ROOT / "qeval").rglob("*") if p.is_file()}
    wanted |= {f"qeval/{p.relative_to(ROOT)}" for p in (ROOT / "tasks").rglob("*") if p.is_file()}
    missing = {name for name in wanted if "__pycache__" not in name} - inside
    assert missing == set()
    assert "qeval/py.typed" in inside  # without it, type checkers take the package for untyped
    assert not {name for name in inside if name.startswith(("tests/", "reports/"))}


@pytest.mark.slow
def test_it_works_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    commands = (
        "run --model toy[items=5] --schemes fp16,bnb4 --suite demo",
        "list suites",
        "report -o r.html -o r.md",
    )
    code = "import qeval, sys; from qeval.cli.main import main; print(qeval.__file__, file=sys.stderr)\n"
    code += "sys.exit(any(main(words.split(), standalone_mode=False) for words in sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *commands],
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stderr
    assert "leaderboard-v1" in done.stdout
    assert (tmp_path / "r.html").stat().st_size > 5000
