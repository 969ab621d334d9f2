"""Texts by qeval's own loop, where it is shown to write what lm-eval's class has a model write."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qeval.base.errors import QevalError
from qeval.score.harness.stopping import Stops
from qeval.score.harness.tame import replaced
from qeval.score.harness.writing import Raw, Reader, some, without_budget

if TYPE_CHECKING:
    from qeval.score.engine.body import CausalModel
    from qeval.score.engine.writer import Watch, Writer

MANY = 200
"""As many texts are worth a check, whatever it costs."""
CHECK_READS = 24
"""What the check costs, as so many whole prompts read: fewer texts must save more by sharing."""
_LEFT_ALONE = frozenset({"do_sample", "temperature", "top_k", "top_p", "min_p"})
"""Options of a task that change nothing where the likeliest token is taken."""


@dataclass(frozen=True, eq=False)
class _Ask:
    """Requests with the same options, all with whole prompts or all with ones that lost their beginning:
    their places among all, their prompts' tokens, the strings that stop a text, and how many tokens it may
    have."""

    places: list[int]
    prompts: list[list[int]]
    stops: tuple[str, ...]
    budget: int


class OwnLoop:
    """The loop for one loaded model, over all its tasks. `notes`: sentences on where it was not used though
    it might have been, and on how its texts differ.

    It takes requests for the likeliest text that name no option it does not know, of models whose own
    settings ask for nothing else; each task's shortest and longest prompt are tried first, unless longer
    ones were.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.notes: list[str] = []
        self._opened: tuple[Writer, CausalModel] | None = None
        self._checked: dict[bool, int] = {}  # with something shared or not -> the longest text tried
        self._tried = self._differed = 0

    def __call__(self, reader: Reader, asked: Sequence[Any]) -> list[Raw] | None:
        """What was written to lm-eval's requests; None where lm-eval's class is to write."""
        if reader.thinking.end or not self._plain():
            return None
        asks = _asks(reader.lm, [one.args for one in asked])
        if asks is None or not _pays(asks):
            return None
        try:
            found = self._written(reader, asked, asks)
        except QevalError as error:
            found = error.message.rstrip(".")
        except Exception as error:  # noqa: BLE001 - whatever it is, lm-eval's class writes
            traceback.print_exc()
            found = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if isinstance(found, str):
            self.notes.append(f"{reader.task}: texts were written by lm-eval's own code ({found}).")
            return None
        return found

    def _plain(self) -> bool:
        """Whether the model writes by transformers' own code, and its settings change no likeliest token."""
        from transformers import GenerationMixin

        model = self.model
        own = getattr(getattr(model, "generate", None), "__func__", None) is GenerationMixin.generate
        return own and not model.config.is_encoder_decoder and acts(model.generation_config) is None

    def _written(self, reader: Reader, asked: Sequence[Any], asks: Sequence[_Ask]) -> list[Raw] | str:
        """What was written, or why lm-eval's class must write."""
        from qeval.score.engine.writer import in_common

        self._tried = self._differed = 0
        writer, lm = self._open(int(reader.lm.batch_size))
        size, found = writer.size, dict[int, Raw]()
        for ask in asks:
            writer.share(in_common(ask.prompts))
            reason = self._doubt(writer, lm, reader, ask, asked)
            if reason is not None:
                return reason
            texts = writer.texts(ask.prompts, ask.budget, _watch(reader, ask))
            found |= {
                at: Raw(text, ask.stops, ask.budget) for at, text in zip(ask.places, texts, strict=True)
            }
        writer.share(())
        self.notes += self._remarks(reader.task, size, writer.size)
        return [found[at] for at in range(len(asked))]

    def _remarks(self, task: str, size: int, left: int) -> Iterator[str]:
        """What must be known of a task's texts."""
        if self._differed:
            yield (
                f"{task}: texts were written by qeval's own loop; {self._differed} of {self._tried} that were"
                " tried differ from lm-eval's, their tokens' likelihoods by no more than rounding."
            )
        if left < size:
            yield f"{task}: memory ran out with {size} texts at once; from then on {left} were."

    def _open(self, size: int) -> tuple[Writer, CausalModel]:
        from qeval.score.engine.body import CausalModel
        from qeval.score.engine.writer import Writer

        if self._opened is None:
            self._opened = Writer(self.model, size), CausalModel(self.model)
        return self._opened

    def _doubt(
        self, writer: Writer, lm: CausalModel, reader: Reader, ask: _Ask, asked: Sequence[Any]
    ) -> str | None:
        """Why lm-eval's class must write what was asked; None where a few texts show that it need not."""
        from qeval.score.engine import proofread

        longest, shares = max(map(len, ask.prompts)), bool(writer.shared)
        if not writer.reaches(longest + ask.budget):
            return "its positions mean another thing in longer texts"
        if self._checked.get(shares, 0) >= longest:
            return None
        chosen = proofread.chosen(ask.prompts)
        budget = min(ask.budget, proofread.STEPS)
        drafted = proofread.draft(writer, [ask.prompts[at] for at in chosen], budget, _watch(reader, ask))
        reason = proofread.doubt(drafted, lm)
        if reason is None:
            tried = [asked[ask.places[at]] for at in chosen]
            mine = [Raw(text, ask.stops, budget) for text in drafted.texts]
            reason = self._compared(reader, tried, mine, ask.budget)
        if reason is None:
            self._checked[shares] = longest
        return reason

    def _compared(self, reader: Reader, tried: Sequence[Any], mine: Sequence[Raw], budget: int) -> str | None:
        """Why texts must not stand for lm-eval's own to the same requests: they differ where rounding is no
        reason, in 32 bits on a CPU. Elsewhere the share is told."""
        import torch

        short, lm = mine[0].budget, reader.lm
        with replaced(lm, "_max_length", lm.max_length - budget + short):  # so that prompts are cut alike
            asked = [_with_budget(one, short) for one in tried]
            theirs = reader.by_lm_eval(asked)
        written = zip(mine, theirs, reader.texts(mine, asked), reader.texts(theirs, asked), strict=True)
        differ = sum(
            raw.tokens != other.tokens[: len(raw.tokens)] or text.answer != own.answer
            for raw, other, text, own in written
        )
        exact = lm.device.type == "cpu" and next(self.model.parameters()).dtype == torch.float32
        if differ and exact:
            return f"{differ} of {len(mine)} texts that were tried differ from lm-eval's"
        self._tried, self._differed = self._tried + len(mine), self._differed + differ
        return None


def _with_budget(instance: Any, tokens: int) -> Any:
    """One of lm-eval's requests for fewer tokens."""
    prompt, options = instance.args
    changed = copy(instance)
    changed.arguments = (prompt, {**without_budget(options), "max_gen_toks": tokens})
    return changed


def _pays(asks: Sequence[_Ask]) -> bool:
    """Whether the loop saves more than its check costs, in tokens that are read."""
    from qeval.score.engine.writer import in_common

    saved = sum(len(in_common(ask.prompts)) * (len(ask.prompts) - 1) for ask in asks)
    checks = sum(CHECK_READS * max(map(len, ask.prompts)) for ask in asks)
    return sum(len(ask.prompts) for ask in asks) >= MANY or saved >= checks


def _watch(reader: Reader, ask: _Ask) -> Watch:
    """Watchers for the texts of some requests."""
    return lambda prompts: Stops(reader.thinking, reader.tokenizer, prompts, ask.stops).ended


def _asks(lm: Any, arguments: Sequence[tuple[str, dict[str, Any]]]) -> list[_Ask] | None:
    """lm-eval's requests as its class would put them to a model; None where they name what only that knows,
    or where what a prompt is to it depends on the batch."""
    from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs

    if len({has_bos_prefix(prompt, getattr(lm.tokenizer, "bos_token", None)) for prompt, _ in arguments}) > 1:
        return None
    eos = lm.tok_decode(lm.eot_token_id, skip_special_tokens=False)
    found: dict[tuple[Any, ...], _Ask] = {}
    for place, (prompt, own) in enumerate(arguments):
        options: dict[str, Any] = dict(normalize_gen_kwargs(own, lm.max_gen_toks))
        stops = some(handle_stop_sequences(options.pop("until", None), eos=eos))
        budget = int(options.pop("max_gen_toks"))
        room = lm.max_length - budget
        tokens = lm.tok_batch_encode([prompt])[0][0].tolist()
        drawn = options["do_sample"] is not False
        if drawn or not set(options) <= _LEFT_ALONE or not tokens or budget < 1 or room < 1:
            return None
        ask = found.setdefault((stops, budget, len(tokens) > room), _Ask([], [], stops, budget))
        ask.places.append(place)
        ask.prompts.append(tokens[-room:])
    return list(found.values())


_NOTHING = {
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), 1),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "length_penalty"), 1.0),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length"), 0),
    "diversity_penalty": 0.0,
}
"""Settings of transformers' generation by which nothing happens, beside None, False and empty ones."""
_ELSEWHERE = _LEFT_ALONE | {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "max_length"),
    *("typical_p", "top_h", "epsilon_cutoff", "eta_cutoff", "early_stopping", "remove_invalid_values"),
    *(
        "use_cache",
        "cache_implementation",
        "cache_config",
        "max_cache_len",
        "compile_config",
        "disable_compile",
    ),
    *("transformers_version", "_from_model_config", "renormalize_logits"),
}
"""Those that the loop reads itself, that lm-eval names itself, or that move no likeliest token."""


def acts(config: Any) -> str | None:
    """The name of a model's own setting that changes which tokens are written, beyond what the loop knows."""
    from transformers import GenerationConfig

    usual = GenerationConfig().to_dict()
    for name, value in config.to_dict().items():
        idle = (not value and not isinstance(value, int)) or value is False or value == usual.get(name)
        if not (idle or name in _ELSEWHERE or (name in _NOTHING and value == _NOTHING[name])):
            return str(name)
    return None
