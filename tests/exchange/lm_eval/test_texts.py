"""Which imported items share a text, whatever stands before the question, in every shape lm-eval logs."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from factories import make_run
from harness_files import results, sample, write
from invented import words

from qeval.compare.evidence import gather
from qeval.exchange.export import export
from qeval.exchange.lm_eval.reading import import_lm_eval
from qeval.store.clusters import count_texts

N = 60
PASSAGES = [[at, at + 1, at + 2] for at in range(0, N, 3)]


def passage(at):
    """Three questions each stand under one text of two paragraphs."""
    return f"{words(50, f'text {at // 3}')}\n\n{words(20, f'more {at // 3}')}"


def quoted(at):
    return f"This question refers to the following information.\n{passage(at)}\n{words(9, at)} {at}?"


def line(at, prompt, doc, **changes):
    asked = {f"gen_args_{i}": {"arg_0": prompt, "arg_1": f" {choice}"} for i, choice in enumerate("AB")}
    return sample(at, at % 2, arguments=asked, doc=doc, **changes)


def found(tmp_path, lines, *, edit=None, task="letters"):
    """The clusters of one imported task, as lists of places."""
    table = results(task)
    if edit:
        edit(table["configs"][task])
    imported = import_lm_eval(write(tmp_path, table, samples={task: lines}))
    [cell] = imported.run.results[0].cells
    names = imported.samples[cell.key].cluster
    assert cell.texts == count_texts(names)
    grouped = {}
    for place, name in enumerate(names.tolist()):
        if name:
            grouped.setdefault(name, []).append(place)
    return list(grouped.values())


# --- before the question ------------------------------------------------------------------------

EXAMPLES = [f"{quoted(1000 + 3 * k)}\nA. one\nB. two\nAnswer: A" for k in range(12)]
"""Examples that quote long passages too."""


def fixed(_):
    return "\n\n".join(EXAMPLES[:5])


def drawn(at):
    return "\n\n".join(random.Random(at).sample(EXAMPLES, 5))


def plain(before, own):
    return f"{words(60, 'description')}\n\n{before}\n\n{own}"


def turns(before, own, end="\n"):
    parts = [*before.split("Answer: A"), own]
    return "".join(f"<|user|>{end}{part.strip()}<|end|>{end}<|assistant|>{end}" for part in parts)


def headed(before, own):
    return turns(before, own, "\n\n")


@pytest.mark.parametrize("examples", [fixed, drawn, lambda _: ""])
@pytest.mark.parametrize("frame", [plain, turns, headed])
def test_examples_descriptions_and_chat_frames_are_no_part_of_a_question(tmp_path, examples, frame):
    def lines(ask):
        asked = [(at, f"{ask(at)}\nA. one\nB. two\nAnswer:") for at in range(N)]
        return [line(at, frame(examples(at), own), {"question": ask(at), "answer": 1}) for at, own in asked]

    assert found(tmp_path / "shared", lines(quoted)) == PASSAGES
    lone = lines(lambda at: f"{words(70, f'alone {at}')} {at}?")
    assert found(tmp_path / "alone", lone) == []


def test_without_documents_the_question_begins_behind_the_last_delimiter(tmp_path):
    lines = [line(at, plain(drawn(at), quoted(at).replace("\n\n", "\n")), {}) for at in range(N)]
    assert found(tmp_path, lines) == PASSAGES


def test_generated_answers_are_asked_with_examples_too(tmp_path):
    lines = [
        sample(
            at,
            right=True,
            doc={"question": quoted(at), "answer": "7"},
            arguments={"gen_args_0": {"arg_0": plain(drawn(at), quoted(at)), "arg_1": {"until": ["\n"]}}},
            resps=[["7"]],
            filtered_resps=["7"],
            target="7",
        )
        for at in range(N)
    ]
    edit = lambda config: config.update(output_type="generate_until")  # noqa: E731
    assert found(tmp_path, lines, edit=edit) == PASSAGES


# --- documents ----------------------------------------------------------------------------------


def boolq(at):
    doc = {"passage": words(12, f"text {at // 3}"), "question": f"is it {at}", "idx": at, "label": 1}
    return line(at, f"{doc['passage']}\nQuestion: {doc['question']}?\nAnswer:", doc)


def race(at):
    doc = {"article": passage(at), "question": f"{words(8, at)} _ .", "example_id": f"high{at // 3}.txt"}
    return line(at, f"Article: {doc['article']}\n\nQuestion: {doc['question']}\nAnswer:", doc)


@pytest.mark.parametrize("shape", [boolq, race])
def test_fields_that_hold_a_text(tmp_path, shape):
    assert found(tmp_path, [shape(at) for at in range(N)]) == PASSAGES


def test_identical_documents(tmp_path):
    lines = [line(at, f"What is {at}?", {"question": f"What is {at}?"}) for at in range(N)]
    lines[7] = {**lines[2], "doc_id": 7, "prompt_hash": "another"}
    assert found(tmp_path, lines) == [[2, 7]]


def document(at, text, **more):
    return sample(
        at,
        right=True,
        doc={"text": text, **more},
        arguments={"gen_args_0": {"arg_0": text}},
        resps=[[str(-80.0 - at)]],
        filtered_resps=[str(-80.0 - at)],
        metrics=["word_perplexity"],
        word_perplexity=[-80.0 - at, 40.0],
    )


def rolling(config):
    config["output_type"] = "loglikelihood_rolling"
    config["metric_list"] = [{"metric": "word_perplexity", "aggregation": "weighted_perplexity"}]


def test_pages_are_texts_and_lines_of_a_page_are_one(tmp_path):
    pages = [document(at, f"{passage(at)} {at}") for at in range(N)]
    assert found(tmp_path / "pages", pages, edit=rolling, task="pages") == []
    lines = [document(at, f"{words(9, at)} {at}", page=at // 3) for at in range(N)]
    assert found(tmp_path / "lines", lines, edit=rolling, task="lines") == PASSAGES


# --- there and back -----------------------------------------------------------------------------


def test_clusters_come_back_from_our_own_files(tmp_path):
    run, read, items = make_run(2, n_items=30)
    names = np.array([str(at - at % 3) if at < 20 else "" for at in range(30)])
    run = replace(run, results=run.results[:1])

    def shared(cell):
        return replace(read(cell), cluster=names) if cell.task.name == "arc" else read(cell)

    keyed = lambda cell: {item.key: item for item in items(cell)}  # noqa: E731
    export(gather(run, shared), shared, keyed, "lm-eval", tmp_path)
    again = import_lm_eval(tmp_path)
    cells = {cell.task.name: cell for cell in again.run.results[0].cells}
    assert again.samples[cells["arc"].key].cluster.tolist() == names.tolist()
    assert cells["arc"].texts == 17
    assert set(again.samples[cells["truth"].key].cluster) == {""}
