"""Texts that a model writes, by lm-eval's own model class: how they are asked for, and how they ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from qeval.base.errors import QevalError
from qeval.score.harness import thinking as thoughts
from qeval.score.harness.prepared import PreparedTask
from qeval.score.harness.reference import hflm_of, instances_of
from qeval.score.harness.stopping import Stops
from qeval.score.harness.tame import lm_eval_tamed, replaced
from qeval.score.harness.thinking import Ending

_BUDGETS = ("max_new_tokens", "max_tokens", "max_completion_tokens", "max_length")
"""lm-eval's other names for the number of tokens that a text may have."""


@dataclass(frozen=True)
class Text:
    """What a model wrote: all of it, up to the stop string that ended it, and its `answer` without thinking.

    `thinking` tells what became of that, `halted` that a stop string ended it, as in lm-eval; `budget` is the
    number of tokens that it might have had, where it took them all without coming to an end; else 0.
    `shortened`: its prompt lost its beginning, so that it had room.
    """

    whole: str
    answer: str
    thinking: Ending = "none"
    halted: bool = False
    budget: int = 0
    shortened: bool = False


def as_text(written: Text | str) -> Text:
    """A plain string is an answer without thinking."""
    return written if isinstance(written, Text) else Text(written, written)


def written_as(
    prepared: PreparedTask,
    tokenizer: Any,
    *,
    max_gen_toks: int | None = None,
    repeats: int | None = None,
    temperature: float | None = None,
    think_end: str | None = None,
) -> PreparedTask:
    """A task that generates, with what was asked of its texts instead of its own options.

    Raises QevalError for a budget that leaves no room for a prompt, and for repeats of texts that are not
    drawn.
    """
    options: dict[str, Any] = {} if max_gen_toks is None else {"max_gen_toks": max_gen_toks}
    if temperature is not None:
        options |= {"do_sample": True, "temperature": temperature}
    if max_gen_toks is not None and max_gen_toks >= prepared.max_length:
        raise QevalError(
            f"{max_gen_toks} tokens leave no room for a prompt: the model accepts {prepared.max_length}.",
            "Give a smaller --max-gen-toks.",
        )
    content = replace(prepared.content, arguments=_asked_with(prepared.content.arguments, options))
    thinking = thoughts.thinking_of(tokenizer, think_end)
    made = replace(prepared, content=content, thinking=thinking, options=options)
    return made if repeats is None else _in_rounds(made, repeats)


def _in_rounds(prepared: PreparedTask, rounds: int) -> PreparedTask:
    """Every text written so often; the values of items are shares then."""
    task = prepared.task
    if not all(_drawn(options) for _, options in prepared.content.arguments()):
        raise QevalError(
            f"The task {task.name!r} writes the most likely text, so all repeats would be the same.",
            "Give a --temperature to sample them with, or leave out --repeats.",
        )
    task = replace(task, kind="score") if task.kind == "accuracy" else task
    return replace(prepared, task=task, rounds=rounds)


def _drawn(options: Mapping[str, Any]) -> bool:
    """Whether lm-eval draws tokens under these options."""
    asked = options.get("do_sample")
    return float(options.get("temperature") or 0) > 0 if asked is None else bool(asked)


def _asked_with(
    arguments: Callable[[], Sequence[Any]], options: dict[str, Any]
) -> Callable[[], Sequence[Any]]:
    """The same questions with these options."""
    if not options:
        return arguments
    others = _BUDGETS if "max_gen_toks" in options else ()

    @cache
    def asked() -> Sequence[Any]:
        return [(prompt, {**_but(own, others), **options}) for prompt, own in arguments()]

    return asked


def _but(options: Mapping[str, Any], others: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in others}


def without_budget(options: Mapping[str, Any]) -> dict[str, Any]:
    """lm-eval's options without any of its names for the number of tokens that a text may have."""
    return _but(options, _BUDGETS)


def generate(
    prepared: PreparedTask,
    model: Any,
    tokenizer: Any,
    *,
    batch_size: int = 1,
    seed: int = 1234,
    own: Own | None = None,
) -> list[Text]:
    """The texts the model writes, `prepared.texts` for each question in turn; by `own` means where those do,
    else by lm-eval's.

    Where it draws its tokens the same seed, batch size and device give the same texts.
    """
    with lm_eval_tamed(), _seeded(seed):
        lm = hflm_of(prepared, model, tokenizer, batch_size)
        reader = Reader(prepared, lm)
        asked = [instance for instance in instances_of(prepared) for _ in range(prepared.texts)]
        found = own(reader, asked) if own else None
        if found is None:
            found = reader.by_lm_eval(asked)
    return reader.texts(found, asked)


@dataclass(frozen=True)
class Raw:
    """The tokens of one text, the stop strings and the number of tokens that it might have."""

    tokens: list[int]
    stops: tuple[str, ...]
    budget: int


Own = Callable[["Reader", Sequence[Any]], Sequence[Raw] | None]
"""What may write in place of lm-eval's class, to its requests; None where it does not."""


class Reader:
    """Stands where lm-eval makes text of tokens, so that nothing of it is lost: not the thinking, not the
    special tokens around it, not the way it ended."""

    def __init__(self, prepared: PreparedTask, lm: Any) -> None:
        self.lm, self.tokenizer, self.task = lm, lm.tokenizer, prepared.task.name
        self.length = cache(lambda prompt: len(lm.tok_encode(prompt)))
        self.most = lm.max_length
        self.thinking = prepared.thinking
        self.marks = thoughts.hidden(prepared.thinking, lm.tokenizer)
        self.context: Any = None
        self.budget, self.beams = 0, 1
        ends = getattr(lm.model.generation_config, "eos_token_id", None)
        self.ends = {lm.eot_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    def by_lm_eval(self, asked: Sequence[Any]) -> list[Raw]:
        """What lm-eval's own class has the model write, to its requests."""
        from lm_eval.models import huggingface

        lm = self.lm
        with (
            replaced(lm, "tok_decode", self.decode),
            replaced(lm, "_model_generate", self.watched(lm._model_generate)),  # noqa: SLF001 - knows the budget
            replaced(huggingface, "postprocess_generated_text", self.finish),
            replaced(huggingface, "stop_sequences_criteria", self.criteria(huggingface)),
        ):
            found: list[Raw] = lm.generate_until(list(asked), disable_tqdm=True)
        return found

    def texts(self, found: Sequence[Raw], asked: Sequence[Any]) -> list[Text]:
        """The texts of what was written to lm-eval's requests."""
        return [self.text(raw, str(one.args[0])) for raw, one in zip(found, asked, strict=True)]

    def watched(self, model_generate: Any) -> Any:
        """lm-eval's own call of the model, noticing how many tokens each text of a batch may have."""

        def generates(context: Any, max_length: int, **options: Any) -> Any:
            self.context, self.budget = context, max_length - context.shape[1]
            beams = options.get("num_beams") or getattr(self.lm.model.generation_config, "num_beams", None)
            self.beams = int(beams or 1)
            return model_generate(context=context, max_length=max_length, **options)

        return generates

    def criteria(self, huggingface: Any) -> Any:
        """The maker of criteria for stopping: lm-eval's own where its marker was named, and where beams are
        searched, each of which is a row."""
        theirs = huggingface.stop_sequences_criteria
        if self.thinking.end:
            return theirs

        def made(tokenizer: Any, stop: Sequence[str], *sizes: int) -> Any:
            from transformers import StoppingCriteriaList

            if self.beams > 1:
                return theirs(tokenizer, stop, *sizes)
            prompts = self.context.tolist()
            return StoppingCriteriaList([Stops(self.thinking, tokenizer, prompts, some(stop))])

        return made

    def decode(self, tokens: Any, skip_special_tokens: bool = True) -> Any:
        """An answer's tokens stay tokens; what is asked for with its special tokens becomes text."""
        if skip_special_tokens:
            return list(tokens)
        return self.tokenizer.decode(tokens, skip_special_tokens=False)

    def finish(self, generation: list[int], stop: Sequence[str], think_end_token: object) -> Raw:
        """What lm-eval does last; it was told of no marker."""
        del think_end_token
        return Raw(generation, some(stop), self.budget)

    def text(self, raw: Raw, prompt: str) -> Text:
        """The text of tokens: without thinking first, then up to the first stop string, as in lm-eval."""
        text = thoughts.decoded(self.tokenizer, raw.tokens, self.marks)
        rest, ending = self.thinking.without(text, begun=self.thinking.begun(prompt))
        answer = _until(rest, raw.stops)
        halted = ending == "open" and bool(self.thinking.end) and any(stop in text for stop in raw.stops)
        if halted:
            whole = _until(text, raw.stops)
        else:
            whole = text if ending == "open" else text[: len(text) - len(rest)] + answer
        stopped = halted or answer != rest or not self.ends.isdisjoint(raw.tokens)
        over = len(raw.tokens) >= raw.budget and not stopped
        shortened = self.length(prompt) > self.most - raw.budget
        return Text(whole, answer, ending, halted, raw.budget if over else 0, shortened)


def some(stops: Sequence[str]) -> tuple[str, ...]:
    """Those that are no empty strings."""
    return tuple(text for text in stops if text)


def _until(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.split(stop, maxsplit=1)[0]
    return text


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Within it torch's generators start from `seed`; afterwards they are as before."""
    import torch

    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
