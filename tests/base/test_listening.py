"""Warnings of libraries that change what is loaded, asked or calculated reach the notes, once each."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path

import pytest

from qeval.base.listening import KEYS, PATTERNS, Heard, listening

WARNINGS: dict[str, list[str]] = {
    KEYS: [
        "\x1b[1mLlamaForCausalLM LOAD REPORT\x1b[0m from: /m\nKey   | Status |\n---\nx.bias | UNEXPECTED |",
        "Some weights of LlamaForCausalLM were not initialized from the model checkpoint at m: ['lm_head']",
        "Some weights of the model checkpoint at m were not used when initializing Llama: ['x']",
        "Found missing adapter keys while loading the checkpoint: ['a.lora_A.weight'].",
    ],
    "tied weights": [
        (
            "The tied weights mapping and config for this model specifies to tie a to b, but both are"
            " present in the checkpoints with different values, so we will NOT tie them. You should"
            " update the config"
        ),
        "This checkpoint seem corrupted. The tied weights mapping for this model specifies to tie",
    ],
    "another model class": [
        "You are using a model of type `mistral` to instantiate a model of type `llama`.",
        "config.json has 'model_type=llama' but you overrode it with 'model_type=opt'.",
    ],
    "quantisation left out": [
        "Unknown quantization type, got x - supported types are: ['a']. Hence, we will skip the quantization",
        "You are loading your model in 8bit but no linear modules were found in your model.",
    ],
    "positions": [
        "The explicitly set RoPE scaling factor (config.rope_parameters['factor'] = 32.0) does not match",
        "`rope_parameters`'s factor field must be a float or int >= 1, got 0.5",
    ],
    "configuration": [
        "Model config: pad_token_id must be `None` or an integer within the vocabulary (between"
    ],
    "new embeddings": ["The new embeddings will be initialized from a multivariate normal distribution"],
    "tokenizer": [
        "The tokenizer you are loading from 'm' with an incorrect regex pattern: https://",
        "The tokenizer class you load from this checkpoint is not the same type as the class",
        "`tokenizer_class` is `LlamaTokenizer` but `tokenizer.json` is ByteLevel; loading",
        "Special tokens have been added in the vocabulary, make sure the associated word embeddings",
        "Could not reorder vocab using converter for X. Falling back to raw SentencePiece extraction.",
    ],
    "truncation": [
        "Combined length of context (300) and continuation (4) exceeds model's maximum length (256). Some",
        "Left truncation applied. Original sequence length was 300, truncating to last 256 tokens. Some",
        "Token indices sequence length is longer than the specified maximum sequence length for",
    ],
    "template": [
        "No chat template is set for this tokenizer, falling back to a default class-level template. This is",
        "Failed to apply chat template. removing the system role in chat history.",
        "Chat template name provided, but the tokenizer's chat template is not a dictionary. Using the",
        "Applied prompt returns empty string",
    ],
    "examples": [
        "[Task: t] has_training_docs and has_validation_docs are False, using test_docs as fewshot_docs but",
        "[Task: t] num_fewshot > 0 but fewshot_split is None. using preconfigured rule.",
    ],
    "answers": ["Label index was not in within range of available choices,Sample:"],
    "decoding": [
        "The following generation flags are not valid and may be ignored: ['temperature'].",
        "Using the model-agnostic default `max_length` (=20) to control the generation length.",
        "Both `max_new_tokens` (=8) and `max_length`(=20) seem to have been set.",
    ],
    "padding": [
        "A decoder-only architecture is being used, but right-padding was detected! For correct",
        "The attention mask is not set with a batched input, and cannot be inferred from input because",
    ],
    "attention": [
        (
            "This model is compatible with the following flash attention implementations: `a`."
            " Automatically falling back to `sdpa` instead of `flash_attention_2`."
        ),
        "LlamaModel does not support setting its attention implementation dynamically, because it",
        "Sliding Window Attention is enabled but not implemented for `eager`; unexpected results may be",
        "Flash Attention 2 only supports torch.float16 and torch.bfloat16 dtypes, but the current dype in X",
    ],
    "kernels": [
        "Kernel build failed, falling back to the torch implementation",
        "The fast path is not available because one of the required library is not installed.",
        "kernels hub usage is disabled through the environment USE_HUB_KERNELS=0",
        "torch._dynamo hit config.recompile_limit (8)",
        "MatMul8bitLt: inputs will be cast from torch.float32 to float16 during quantization",
        "matmul_4bit: weight was quantized from a [K, N] tensor (quant_state.shape=[1, 2]).",
    ],
    "remote code": ["A new version of the following files was downloaded from https://huggingface.co/m:"],
}
HARMLESS = (
    "Setting `pad_token_id` to `eos_token_id`:2 for open-end generation.",
    "`torch_dtype` is deprecated! Use `dtype` instead!",
    (
        "You passed `quantization_config` or equivalent parameters to `from_pretrained` but the model you're"
        " loading already has a `quantization_config` attribute. The `quantization_config` from the"
        " model will be used."
    ),
    "`pretrained` model kwarg is not of type `str`. Many other model arguments may be ignored.",
)


@pytest.mark.parametrize(
    ("concerns", "text"), [(concerns, text) for concerns, texts in WARNINGS.items() for text in texts]
)
def test_what_matters_is_heard_as_what_it_is(concerns: str, text: str) -> None:
    known = next(pattern for pattern in PATTERNS if pattern.known_by.search(_cleaned(text)))
    assert known.concerns == concerns
    heard = Heard()
    heard.hear(text)
    heard.hear(text)
    (sentence,) = heard.drain()
    assert "\n" not in sentence
    assert "\x1b" not in sentence
    assert sentence.endswith((".", "…", "!"))
    assert len(sentence) <= 241
    assert heard.drain() == ()


def _cleaned(text: str) -> str:
    return " ".join(text.replace("\x1b[1m", "").replace("\x1b[0m", "").split())


def test_every_pattern_hears_something() -> None:
    texts = [_cleaned(text) for found in WARNINGS.values() for text in found]
    first = {next(p for p in PATTERNS if p.known_by.search(text)) for text in texts}
    assert [pattern.known_by.pattern for pattern in PATTERNS if pattern not in first] == []


@pytest.mark.parametrize("text", HARMLESS)
def test_what_changes_nothing_stays_in_the_log(text: str) -> None:
    heard = Heard()
    heard.hear(text)
    assert heard.drain() == ()


IN_LIBRARIES = (
    ("transformers", "utils/loading_report.py", "LOAD REPORT"),
    ("transformers", "modeling_utils.py", "so we will NOT"),
    ("transformers", "modeling_utils.py", "Automatically falling back to"),
    ("transformers", "configuration_utils.py", "You are using a model of type"),
    ("transformers", "configuration_utils.py", "must be `None` or an integer within the vocabulary"),
    ("transformers", "modeling_rope_utils.py", "The explicitly set RoPE scaling factor"),
    ("transformers", "quantizers/auto.py", "Hence, we will skip the quantization"),
    ("transformers", "tokenization_utils_tokenizers.py", "with an incorrect regex pattern"),
    ("transformers", "tokenization_utils_base.py", "is longer than the specified maximum sequence length"),
    ("transformers", "generation/utils.py", "right-padding was detected"),
    ("transformers", "integrations/hub_kernels.py", "hub usage is disabled"),
    ("lm_eval", "models/huggingface.py", "Combined length of context"),
    ("lm_eval", "models/huggingface.py", "Left truncation applied"),
    ("lm_eval", "models/huggingface.py", "Failed to apply chat template"),
    ("lm_eval", "api/model.py", "No chat template is set"),
    ("lm_eval", "api/task.py", "using test_docs as fewshot_docs"),
    ("lm_eval", "api/task.py", "fewshot_split is None"),
    ("peft", "peft_model.py", "Found missing adapter keys"),
    ("bitsandbytes", "autograd/_functions.py", "inputs will be cast from"),
)


@pytest.mark.parametrize(("library", "file", "words"), IN_LIBRARIES)
def test_the_libraries_still_say_it_so(library: str, file: str, words: str) -> None:
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        pytest.skip(f"{library} is not installed")
    assert words in (Path(spec.origin).parent / file).read_text("utf-8")


@pytest.mark.parametrize("library", ["transformers.modeling_utils", "lm_eval.models.huggingface", "somebody"])
def test_logs_are_heard_and_go_on_as_before(library: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger(library)
    before = [list(logging.getLogger(name).handlers) for name in ("", library, library.partition(".")[0])]
    with listening() as heard:
        for length in (300, 301):
            logger.warning(
                "Left truncation applied. Original sequence length was %d, truncating to last", length
            )
            logger.warning(
                "Combined length of context (%d) and continuation (4) exceeds model's maximum length (256).",
                length,
            )
        logger.info("Applied prompt returns empty string")
    expected = (
        "lm-eval cuts questions from the left where they are longer than the model accepts (256 tokens)."
    )
    assert heard.drain() == (expected,)
    after = [list(logging.getLogger(name).handlers) for name in ("", library, library.partition(".")[0])]
    assert after == before
    del caplog


def test_a_quiet_logger_is_heard_too_and_quiet_again_afterwards() -> None:
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with listening() as heard:
            logging.getLogger("lm_eval.api.task").warning("Applied prompt returns empty string")
        assert heard.drain() == ("Applied prompt returns empty string.",)
        assert logger.level == logging.ERROR
    finally:
        logger.setLevel(before)


def test_warnings_are_heard_and_shown_all_the_same() -> None:
    show = warnings.showwarning
    text = "Found missing adapter keys while loading the checkpoint: ['x']."
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with listening() as heard:
            warnings.warn(text, stacklevel=1)
    assert [str(one.message) for one in shown] == [text]
    assert heard.drain() == (text,)
    assert warnings.showwarning is show


def test_what_is_told_in_other_words_is_not_told_twice() -> None:
    heard = Heard()
    for text in ("Found missing adapter keys: ['x'].", "Applied prompt returns empty string"):
        heard.hear(text)
    heard.forget(KEYS)
    heard.told(["Something else."])
    assert heard.drain() == ("Applied prompt returns empty string.",)
    again = Heard()
    again.hear("Applied prompt returns empty string")
    again.told(["Applied prompt returns empty string."])
    assert again.drain() == ()
