"""The home directory is `~` in what is written, and secrets are not in it."""

from __future__ import annotations

import json

import pytest

from qeval.base.private import homeless, private, withheld


@pytest.fixture
def home(monkeypatch) -> str:
    monkeypatch.setenv("HOME", "/home/alice")
    return "/home/alice"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/alice/models/x", "~/models/x"),
        ("/home/alice", "~"),
        ("gptq@/home/alice/q:main,merged:/home/alice/a", "gptq@~/q:main,merged:~/a"),
        ("--model=/home/alice/m", "--model=~/m"),
        ('{"a": "/home/alice"}', '{"a": "~"}'),
        ("see '/home/alice/log'.", "see '~/log'."),
        *(
            (text, text)
            for text in ("/home/alicex/m", "/data/home/alice/m", "/home/alice-2/m", "./home/alice/m")
        ),
    ],
)
def test_home_is_a_tilde(home, text, told):
    del home
    assert homeless(text) == told
    assert json.loads(homeless(json.dumps(text))) == told


@pytest.mark.parametrize("home", ["/", ""])
def test_a_home_that_is_the_root_is_none(monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    assert homeless("/data/m") == "/data/m"


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "my_password", "GITHUB_TOKEN"]
)
def test_what_a_variable_calls_a_secret_is_withheld(monkeypatch, name):
    monkeypatch.setenv(name, 'se"cret\\value')
    assert withheld('x se"cret\\value y') == "x [withheld] y"
    assert json.loads(withheld(json.dumps({"a": 'se"cret\\value'}))) == {"a": "[withheld]"}


def test_what_is_no_secret_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path))
    monkeypatch.setenv("X_TOKEN", "1")
    text = f"parallel {tmp_path} 1 task-12345678901234567890 https://a.b/c@d:e hf_transfer"
    assert withheld(text) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("token hf_" + "a1B2" * 9, "token [withheld]"),
        ("ghp_" + "x" * 36 + ".", "[withheld]."),
        ("https://me:pw@proxy:80/x", "https://[withheld]@proxy:80/x"),
    ],
)
def test_what_looks_like_a_secret_is_withheld(text, told):
    assert private(text) == told
