"""Token streams: windows as the papers and llama.cpp cut them, documents, prompts in the chat frame."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import pytest
from byte_tokenizer import a_tokenizer

pytest.importorskip("transformers")

from qeval.ask.protocols import parse
from qeval.base.errors import QevalError
from qeval.score.fidelity import streams

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
MIRROR = Path(os.environ.get("QEVAL_DATASETS_DIR", "/nowhere"))
needs_wikitext = pytest.mark.skipif(
    not (MIRROR / "Salesforce" / "wikitext").is_dir(), reason="WikiText-2 is not here"
)


def stream(words, tokenizer=None, longest=4096):
    [protocol] = parse(words)
    return streams.stream_of(protocol, tokenizer or a_tokenizer(), MIRROR, longest)


@functools.cache
def wikitext():
    return stream("wikitext-2048")


@needs_wikitext
def test_wikitext_is_cut_as_the_papers_do():
    from datasets import load_dataset

    made, tokenizer = wikitext(), a_tokenizer()
    lines = load_dataset(str(MIRROR / "Salesforce" / "wikitext"), "wikitext-2-raw-v1", split="test")["text"]
    whole = tokenizer("\n\n".join(lines))["input_ids"]
    count = len(whole) // 2048
    assert len(made) == count
    assert made.n == made.available == count * 2047
    assert np.array_equal(made.tokens, whole[: count * 2048])
    assert made.tokens[0] == 0
    assert (made.tokens[1:] != 0).all()
    assert np.array_equal(made.window(1), whole[2048:4096])


@needs_wikitext
def test_wikitexts_articles_are_its_documents():
    made, tokenizer = wikitext(), a_tokenizer()
    assert made.documents
    numbers, begins = np.unique(made.document, return_index=True)
    assert len(numbers) == 60
    for number, title in ((1, " = Du Fu = "), (59, " = ")):
        begin = begins[number]
        assert tokenizer.decode(made.tokens[begin : begin + 20]).startswith(title)
    assert (np.diff(made.document) >= 0).all()


@needs_wikitext
def test_llama_cpp_begins_each_window_anew_and_scores_its_second_half():
    made = stream("llama.cpp-512[windows=20]")
    assert len(made) == 20
    assert (made.tokens[::512] == 0).all()
    assert set(made.counts.tolist()) == {255}
    assert made.available > made.n
    assert made.scored()[0] == 257
    other = stream("llama.cpp-512[windows=20]", a_tokenizer(bos=False))
    assert other.tokens[0] != 0
    decoded = a_tokenizer().decode(other.window(0))
    assert decoded.startswith(" \n = Robert Boulter = \n \n Robert Boulter is")


def test_prose_is_a_window_a_document():
    made = stream("prose")
    assert len(made) == 24
    assert (made.first == 1).all()
    assert (made.tokens[made.starts] == 0).all()
    assert len(np.unique(made.document)) == 24
    assert made.n == len(made.tokens) - 24


def test_a_text_keeps_what_is_left_of_it(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("x" * 250)
    made = stream(f"text:{file}", longest=100)
    assert (made.ends - made.starts).tolist() == [100, 100, 51]
    assert not made.documents
    assert made.n == 99 + 99 + 50


def test_prompts_stand_in_the_chat_frame(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("Hello\n\nGood day\n")
    made = stream(f"prompts:{file}")
    tokenizer = a_tokenizer()
    assert [tokenizer.decode(made.window(k)) for k in range(2)] == [
        "<|user|>Hello<|assistant|>",
        "<|user|>Good day<|assistant|>",
    ]
    (tmp_path / "a.jsonl").write_text('{"prompt": "Hello"}\n{"prompt": "Good day"}\n')
    assert stream(f"prompts:{tmp_path}/a.jsonl").sha256 == made.sha256
    assert stream(f"prompts:{file}[windows=1]").sha256 != made.sha256


def test_our_own_prompts_are_there():
    assert len(stream("prompts:own")) == 24


def test_a_hash_tells_streams_apart():
    one = stream("prose")
    assert one.sha256 == stream("prose").sha256
    assert one.beginning(5).sha256 != one.sha256
    later = streams.joined([(one.window(0).tolist(), 2)], parse("prose")[0])
    first = streams.joined([(one.window(0).tolist(), 1)], parse("prose")[0])
    assert later.sha256 != first.sha256


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prompts:own", "the model's tokenizer has none"),
        ("wikitext-2048", "the model reads 1024 at most"),
    ],
)
def test_what_a_model_cannot_read(words, said):
    with pytest.raises(QevalError, match=said):
        stream(words, a_tokenizer(chat=None), longest=1024)


def test_a_prompt_that_is_too_long_is_named(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("Hello\n" + "x" * 600)
    with pytest.raises(QevalError, match=r"Prompt 2 of .* is 621 tokens long, but there is room for 512"):
        stream(f"prompts:{file}", longest=512)


def test_lines_without_a_prompt(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "Hello"}\n')
    with pytest.raises(QevalError, match="has no 'prompt'"):
        stream(f"prompts:{tmp_path}/a.jsonl")


def test_without_a_mirror_the_remedy_is_told():
    [protocol] = parse("wikitext-2048")
    with pytest.raises(QevalError, match="Name a mirror with --datasets-dir"):
        streams.stream_of(protocol, a_tokenizer(), Path("/nowhere"), 4096)
