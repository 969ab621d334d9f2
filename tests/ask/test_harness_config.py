"""lm-eval's own YAML configuration of a run, read as a suite."""

from __future__ import annotations

import pytest

from qeval.ask import harness_config, suites
from qeval.ask.model_args import Asked
from qeval.base.errors import UsageError
from qeval.base.records import Task
from qeval.store.runs import Store

CONFIG = """
model: hf
model_args:
  pretrained: org/tiny
  dtype: float16
tasks: [arc_easy, piqa]
num_fewshot: 5
limit: 100
batch_size: 8
device: cuda:0
log_samples: true
output_path: out
"""


def config(tmp_path, text=CONFIG, name="run.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("tasks", ["[arc_easy, piqa]", "arc_easy,piqa", "\n- arc_easy\n- piqa"])
@pytest.mark.parametrize("name", ["run.yaml", "run.yml"])
def test_what_is_asked_becomes_the_suite(tmp_path, tasks, name):
    path = config(tmp_path, CONFIG.replace("[arc_easy, piqa]", tasks), name)
    suite = suites.load(str(path))
    assert suite.tasks == tuple(Task(task, "", num_fewshot=5, limit=100) for task in ("arc_easy", "piqa"))
    assert (suite.name, suite.average) == ("run", ("arc_easy", "piqa"))
    assert suites.documents_verified(str(path)) == 0
    assert suites.fidelity_of(str(path)) == ((), ())


def test_the_settings_of_a_run_answer_to_the_file(tmp_path):
    path = config(tmp_path, f"{CONFIG}seed: 7\napply_chat_template: true\n")
    with pytest.raises(UsageError, match="has seed: 7, and this run does not") as caught:
        harness_config.check_settings(path, {"seed": 1234, "chat_template": False})
    assert caught.value.hint == "Add --seed 7."
    with pytest.raises(UsageError, match="has apply_chat_template: True") as caught:
        harness_config.check_settings(path, {"seed": 7, "chat_template": False})
    assert caught.value.hint == "Add --chat-template."
    harness_config.check_settings(path, {"seed": 7, "chat_template": True})


def test_the_last_of_four_seeds_draws_the_examples(tmp_path):
    for text in ("[0, 1234, 1234, 7]", "0,1234,1234,7"):
        harness_config.check_settings(config(tmp_path, f"tasks: a\nseed: {text}\n"), {"seed": 7})


def test_a_chat_template_that_the_file_denies(tmp_path):
    path = config(tmp_path, "tasks: a\napply_chat_template: false\n")
    with pytest.raises(UsageError, match="this run does not") as caught:
        harness_config.check_settings(path, {"chat_template": True})
    assert "Leave --chat-template out" in caught.value.hint
    harness_config.check_settings(path, {"chat_template": False})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- arc_easy", "holds a list, which is not an lm-eval configuration"),
        ("tasks: [", "is not YAML"),
        ("num_fewshot: 5", "tasks names no tasks"),
        ("tasks: [{task: a}]", "tasks names no tasks"),
        ("tasks: [a, a]", "names the task 'a' twice"),
        ("tasks: a\nlimit: 0.1", "limit = 0.1 is not allowed"),
        ("tasks: a\nnum_fewshot: -1", "num_fewshot = -1 is not allowed"),
        ("tasks: a\nnum_fewshots: 1", "has no 'num_fewshots'"),
        ("tasks: a\ngen_kwargs: {temperature: 1}", "gen_kwargs would have no effect"),
        ("tasks: a\napply_chat_template: true\nfewshot_as_multiturn: false", "false would have no effect"),
        ("tasks: a\nsystem_instruction: Be brief.", "system_instruction would have no effect"),
        ("tasks: a\nfewshot_as_multiturn: true", "true would have no effect without a chat template"),
        ("tasks: a\nnum_fewshot: 5\nnum_fewshot: 0", "it has 'num_fewshot' twice"),
        ("tasks: a\nmodel_args: {dtype: float16, dtype: float32}", "it has 'dtype' twice"),
    ],
)
def test_what_would_not_act_is_refused(tmp_path, text, says):
    with pytest.raises(UsageError, match=says) as caught:
        suites.load(str(config(tmp_path, text)))
    assert caught.value.hint


def test_a_named_template_is_refused(tmp_path):
    path = config(tmp_path, "tasks: a\napply_chat_template: default\n")
    with pytest.raises(UsageError, match="names a template"):
        harness_config.check_settings(path, {"chat_template": True})


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        ("{max_length: 512}", "as long as the model takes"),
        ("max_length=512,pretrained=org/x", "as long as the model takes"),
        ("{add_bos_token: true}", "tokenizer's own setting"),
        ("{add_bos_token: false}", "tokenizer's own setting"),
        ("{enable_thinking: true}", "template holds"),
        ("{load_in_4bit: true}", "add bnb4 to --schemes"),
        ("{prefix_token_id: 0}", "nothing here would do the same"),
        ("{dtype: bfloat16}", "Add bf16 to --schemes."),
        ("dtype=float32", "Add fp32 to --schemes."),
        ("{revision: v1}", "Add --revision v1."),
        ("{peft: org/lora}", "Add --adapter org/lora."),
        ("{tokenizer: org/other}", "the model's own tokenizer"),
        ("{think_end_token: </think>}", "Add --think-end </think>."),
        ("{max_lengt: 5}", "Did you mean 'max_length'?"),
        ("[1]", "Write for example"),
    ],
)
def test_arguments_of_the_model_act_or_are_refused(tmp_path, args, hint):
    """All of them were set aside in silence."""
    path = config(tmp_path, f"tasks: a\nmodel_args: {args}\n")
    with pytest.raises(UsageError, match="model_args") as caught:
        harness_config.check_settings(path, {}, Asked("org/x", schemes=("fp16", "bnb4")))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "args",
    [
        "{revision: v1, peft: org/lora, dtype: float16, tokenizer: org/x, think_end_token: </t>}",
        "{max_length: null, add_bos_token: null, load_in_4bit: false, revision: v1, dtype: auto}",
        "pretrained=org/y,revision=v1,dtype=torch.float16,batch_size=4,peft=None,trust_remote_code=True",
    ],
)
def test_arguments_of_the_model_that_the_options_say_too(tmp_path, args):
    path = config(tmp_path, f"tasks: a\nmodel_args: {args}\n")
    for adapter in ("org/lora", "merged:org/lora"):
        asked = Asked("org/x", "v1", adapter, ("fp16", "bnb4"), think_end="</t>")
        harness_config.check_settings(path, {}, asked)


def test_the_type_that_is_calculated_in_is_enough(tmp_path):
    path = config(tmp_path, "tasks: a\nmodel_args: {dtype: float32, revision: main}\n")
    harness_config.check_settings(path, {}, Asked(schemes=("bnb4",), dtype="float32"))


def test_every_key_that_lm_eval_knows_is_known_here():
    """All of the release that is installed here, so that a newer one's keys are not missed."""
    import ast
    import importlib.util
    from pathlib import Path

    package = importlib.util.find_spec("lm_eval")
    code = ast.parse((Path(package.origin).parent / "config" / "evaluate_config.py").read_text())
    [made] = [node for node in code.body if getattr(node, "name", "") == "EvaluatorConfig"]
    fields = {node.target.id for node in made.body if isinstance(node, ast.AnnAssign)}
    known = {
        *harness_config._ASKED,
        *harness_config._ASIDE,
        *harness_config._OPTIONS,
        *harness_config._REFUSED,
        "fewshot_as_multiturn",
    }
    assert fields <= known


@pytest.mark.slow
def test_a_run_of_it(qeval, tmp_path, runs_dir):
    text = "tasks: [arc_challenge]\nlimit: 5\nmodel: hf\nseed: 7\n"
    path = config(tmp_path, f"{text}model_args: {{dtype: bfloat16}}\n")
    said = qeval(
        "run", "--model", "toy", "--schemes", "fp16,bnb4", "--suite", path, "--seed", 7, code=2
    ).stderr
    assert "Add bf16 to --schemes." in said
    path = config(tmp_path, text)
    said = qeval("run", "--model", "toy", "--schemes", "fp16,bnb4", "--suite", path, code=2).stderr
    assert "Add --seed 7." in said
    result = qeval("run", "--model", "toy", "--schemes", "fp16,bnb4", "--suite", path, "--seed", 7)
    (run,) = Store(runs_dir).runs()
    assert [cell.n for one in run.read().results for cell in one.cells] == [5, 5]
    assert "arc_challenge" in result.stdout
