"""The words of --fidelity, and what a suite's file says."""

from __future__ import annotations

import pytest

from qeval.ask import suites
from qeval.ask.fidelity import wish_of_run
from qeval.ask.protocols import check_files, of_suite, parse
from qeval.base.errors import QevalError, UsageError
from qeval.base.protocols import ANSWER_TOKENS, Protocol


def test_each_kind_is_read():
    words = "wikitext-2048,llama.cpp-512,prose,text:a.txt,prompts:b.jsonl,trace:own"
    found = parse(words)
    assert [one.kind for one in found] == ["wikitext", "llama.cpp", "prose", "text", "prompts", "trace"]
    assert [one.file for one in found] == ["", "", "", "a.txt", "b.jsonl", "own"]
    assert ",".join(one.name for one in found) == words


@pytest.mark.parametrize(
    ("words", "protocol"),
    [
        ("trace:own,32", Protocol("trace:own,32", "trace", "own", answer=32)),
        ("trace:my, file.txt", None),
        ("wikitext-2048[windows=16]", Protocol("wikitext-2048[windows=16]", "wikitext", windows=16)),
        ("llama.cpp-512[clamp=true]", Protocol("llama.cpp-512[clamp=true]", "llama.cpp", clamp=True)),
        ("prompts:~/a.txt", Protocol("prompts:~/a.txt", "prompts", "~/a.txt")),
    ],
)
def test_options_and_numbers(words, protocol):
    if protocol is None:
        with pytest.raises(UsageError):
            parse(words)
    else:
        assert parse(words) == (protocol,)


def test_a_number_belongs_to_the_trace_before_it():
    found = parse("trace:own,8,prose,llama.cpp-512[windows=2,clamp=true],trace:b.txt")
    assert [one.name for one in found] == [
        "trace:own,8",
        "prose",
        "llama.cpp-512[windows=2,clamp=true]",
        "trace:b.txt",
    ]
    assert [one.answer for one in found] == [8, ANSWER_TOKENS, ANSWER_TOKENS, ANSWER_TOKENS]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "No protocol is named."),
        ("wikitext-2049", "There is no protocol 'wikitext-2049'. Did you mean 'wikitext-2048'?"),
        ("text:", "text: names no file."),
        ("text:own", "Use prose, which is the text that comes with qeval."),
        ("prose,prose", "The protocol 'prose' is named twice."),
        ("prose[windows=0]", "'0' is not a number of 1 or more."),
        ("prose[widnows=3]", "Did you mean 'windows'?"),
        ("prose[clamp=true]", "clamp=true is for llama.cpp-512."),
        ("8", "There is no protocol '8'."),
    ],
)
def test_words_that_make_no_sense(words, said):
    with pytest.raises(UsageError) as error:
        parse(words)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x80\x81", "is no UTF-8"),
        (b"a\0b", "is a NUL"),
        (b"\x1f\x8b123", "it is compressed"),
    ],
)
def test_a_file_that_holds_no_text(tmp_path, data, said):
    file = tmp_path / "text.txt"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(QevalError) as error:
        check_files(parse(f"text:{file},trace:own"))
    assert said in str(error.value)


def test_suites_say_by_which_protocols():
    assert suites.fidelity_of("demo") == (("prose",), ())
    assert suites.fidelity_of("leaderboard-v1") == ((), ("wikitext-2048",))
    assert suites.fidelity_of("quick") == ((), ("wikitext-2048[windows=16]",))
    for name in suites.names():
        for words in suites.fidelity_of(name):
            of_suite(words)


def test_after_the_fact_the_suite_or_the_words_say_it():
    assert [one.name for one in wish_of_run(None, None, "demo", "demo").protocols] == ["prose"]
    assert [one.name for one in wish_of_run("prose", 5, "toy", "mine").protocols] == ["prose"]
    with pytest.raises(UsageError, match="names no protocol"):
        wish_of_run(None, None, "m", "tasks")


def test_a_trace_has_tokens_and_windows():
    [made] = parse("trace:own,8[windows=2]")
    assert (made.name, made.file, made.answer, made.windows) == ("trace:own,8[windows=2]", "own", 8, 2)
