"""Variants that were imported one by one and joined later prove no less than those of one import."""

from __future__ import annotations

import pytest
from harness_files import generated, results, sample, write
from stored import WIDE

pytestmark = pytest.mark.slow

FP16 = {"pretrained": "org/tiny", "dtype": "float16"}
INT4 = {"pretrained": "org/tiny", "load_in_4bit": True}
LETTERS = {"task": "letters", "output_type": "multiple_choice", "dataset_path": "org/data"}
SUMS = {"output_type": "generate_until", "dataset_path": "org/data", "generation_kwargs": {"until": ["\n"]}}
N = 60


def lines(shift=0.0, n=N, **changes):
    """Samples whose log-likelihoods are `shift` lower."""
    found = [{**sample(at, at % 2), **changes} for at in range(n)]
    for row in found:
        for response in row["resps"]:
            response[0][0] = str(float(response[0][0]) - shift * (1 + row["doc_id"]))
    return found


def imported(qeval, place, rows, args, task="letters", *, bare=False, **changes):
    """The id of a run of one variant; `bare`: without its samples."""
    table = results(task, **{"args": args, **changes})
    write(place, table, samples={task: rows})
    for file in place.glob("samples_*") if bare else ():
        file.unlink()
    return qeval("import", place, "--name", place.name).stdout.strip()


def joined(qeval, tmp_path, *, first=None, second=None, code, bare=(False, False), **rows):
    """What a gate says of two runs that were imported by themselves, whatever it said."""
    one = imported(
        qeval, tmp_path / "fp16", rows.get("ours", lines()), **{"args": FP16, **(first or {})}, bare=bare[0]
    )
    two = imported(
        qeval,
        tmp_path / "int4",
        rows.get("theirs", lines(1)),
        **{"args": INT4, **(second or {})},
        bare=bare[1],
    )
    found = qeval("gate", one, two, "--baseline", "fp16", *WIDE, code=code)
    return " ".join((found.stdout + found.stderr).split())


def test_two_that_were_asked_alike_pass(qeval, tmp_path):
    assert "PASS" in joined(qeval, tmp_path, code=0)


def other_choices(row):
    """The sample with another second choice."""
    given = {name: dict(some) for name, some in row["arguments"].items()}
    given["gen_args_1"]["arg_1"] = " C"
    return {**row, "arguments": given}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"args": {**INT4, "max_length": 64}}, "model_args max_length is 64 where the baseline has none"),
        (
            {"args": {**INT4, "tokenizer": "org/x"}},
            "model_args tokenizer is org/x where the baseline has org/tiny",
        ),
        (
            {"args": {**INT4, "add_bos_token": True}},
            "model_args add_bos_token is True where the baseline has False",
        ),
        ({"args": {**INT4, "unheard_of": 3}}, "model_args unheard_of is 3 where the baseline has none"),
        ({"max_length": 64}, ""),
        ({"configs": {"letters": {**LETTERS, "dataset_path": "org/b"}}}, 'dataset_path is "org/b" where'),
        ({"configs": {"letters": {**LETTERS, "doc_to_choice": "z"}}}, 'doc_to_choice is "z" where'),
        ({"n-shot": {"letters": 5}}, "num_fewshot is 1 for fp16 and 5 for int4"),
        ({"versions": {"letters": 2}}, "task version is 1.0 for fp16 and 2 for int4"),
        ({"config": {"fewshot_seed": 7}}, "seed is 1234 in"),
        ({"config": {"limit": N}}, "limit is None in"),
        ({"chat_template": "{{ messages }}"}, "chat_template is False in"),
        ({"lm_eval_version": "0.4.9"}, "int4 was scored with lm-eval 0.4.9, fp16 with 0.4.13"),
        ({"lm_eval_version": None}, "lm-eval's version of letters is recorded for fp16 or int4 alone"),
    ],
)
def test_what_is_not_alike_does_not_pass(qeval, tmp_path, changes, says):
    first = {"max_length": 2048} if "max_length" in changes else {}
    said = joined(qeval, tmp_path, first=first, second=changes, code=5)
    assert (says or "max_length is 64 where the baseline has 2048") in said


def test_other_choices_do_not_pass(qeval, tmp_path):
    theirs = [other_choices(row) if row["doc_id"] == 3 else row for row in lines(1)]
    assert "its items, prompts, choices or right answers are not all the baseline's" in joined(
        qeval, tmp_path, theirs=theirs, code=5
    )


def test_another_limit_or_seed_of_one_of_several_tasks_is_told(qeval, tmp_path):
    """The settings of a run are those that all its tasks share, and else what is usual."""
    names = {}
    for name, args, seeds in (("fp16", FP16, (1, 2)), ("int4", INT4, (3, 2))):
        for task, seed, stamp in zip(
            ("letters", "words"), seeds, ("2026-01-01T00-00-00", "2026-01-02T00-00-00"), strict=True
        ):
            table = results(task, args=args, config={"fewshot_seed": seed})
            rows = [{**row, "doc_hash": f"{task}-{row['doc_id']}"} for row in lines(name == "int4")]
            write(tmp_path / name, table, stamp, samples={task: rows})
        names[name] = qeval("import", tmp_path / name, "--name", name).stdout.strip()
    said = qeval("gate", *names.values(), "--baseline", "fp16", *WIDE, code=5).stdout
    assert "letters: fewshot_seed is 3 where the baseline has 1" in said
    assert "words: fewshot_seed" not in said


@pytest.mark.parametrize("bare", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"configs": {"letters": {**LETTERS, "doc_to_text": "A: {{q}}"}}}, 'doc_to_text is "A: {{q}}" where'),
        (
            {"system_instruction": "Be brief.", "system_instruction_sha": "b"},
            "system_instruction is a text of SHA-256",
        ),
    ],
)
def test_where_one_has_no_samples_what_shapes_prompts_is_compared(qeval, tmp_path, bare, changes, says):
    first = {"configs": {"letters": LETTERS}, "system_instruction": None}
    assert says in joined(qeval, tmp_path, first=first, second={**first, **changes}, bare=bare, code=5)


def test_texts_that_were_generated_otherwise_do_not_pass(qeval, tmp_path):
    rows = [line for at in range(N) for line in generated(at, none=at % 2)]
    first = {"task": "sums", "configs": {"sums": SUMS}}
    second = {**first, "config": {"gen_kwargs": {"temperature": 1.0}}}
    said = joined(qeval, tmp_path, first=first, second=second, ours=rows, theirs=rows, code=5)
    assert 'gen_kwargs is {"temperature": 1.0} where the baseline has none' in said


def test_a_report_and_a_history_tell_what_is_not_alike(qeval, tmp_path):
    one = imported(qeval, tmp_path / "fp16", lines(), FP16)
    two = imported(qeval, tmp_path / "int4", lines(1), {**INT4, "max_length": 64, "truncation": True})
    qeval("report", one, two, "--baseline", "fp16", "-o", tmp_path / "r.md")
    said = "Not proved of int4, so that no gate lets it pass: letters: model_args max_length is 64 where the"
    assert said in (tmp_path / "r.md").read_text().replace("\\", "")
    assert "lets it pass" not in qeval("show", one, "--json").stdout


def test_against_another_baseline_the_same_is_looked_at(qeval, tmp_path):
    """Nothing is told by the first variant, and of the others each tells something else."""
    for at, (name, told) in enumerate((("a", None), ("b", 2048), ("c", 64))):
        table = results("letters", args={**FP16, "dtype": name}, max_length=told)
        write(tmp_path / name, table, samples={"letters": lines(at)})
    run = qeval("import", tmp_path, "--baseline", "tiny[dtype=a]").stdout.strip()
    qeval("gate", run, *WIDE)
    said = qeval("gate", run, "--baseline", "tiny[dtype=b]", *WIDE, code=5).stdout
    assert "letters: max_length is 64 where the baseline has 2048" in said
