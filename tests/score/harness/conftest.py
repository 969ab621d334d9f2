"""Tokenizers of several kinds and a tiny random model, made on the spot; the tests' own lm-eval tasks."""

import json
import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def fixtures():
    return FIXTURES


@pytest.fixture(autouse=True)
def _here(request, monkeypatch, tmp_path_factory):
    """lm-eval looks for a task's files in the working directory, qeval beside the YAML file."""
    monkeypatch.chdir(FIXTURES)
    if "torch" not in request.keywords:
        return  # such a test reads no data sets, and importing the library takes a second
    import datasets

    cache = tmp_path_factory.getbasetemp() / "datasets"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))


def corpus():
    """The text of all fixtures, for a tokenizer to learn from."""
    lines = [line for path in sorted(FIXTURES.glob("*.jsonl")) for line in path.read_text().splitlines()]
    words = [text for line in lines for text in _texts(json.loads(line))]
    return [*words, "Question: Answer:\n\nAnswer: A\n\n", "Choose the letter.\n\n", "0123456789 don't"]


def _texts(value):
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for part in value for text in _texts(part)] if isinstance(value, list) else []


def _wrapped(backend, *, bos=True, template=True, **names):
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    if template and bos:
        start = backend.token_to_id("<s>")
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", start)]
        )
    marks = {"eos_token": "</s>", **({"bos_token": "<s>"} if bos else {}), **names}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **marks)


def _byte_level(pre, **options):
    from tokenizers import Tokenizer, decoders, models, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre
    backend.decoder = decoders.ByteLevel()
    from tokenizers.pre_tokenizers import ByteLevel

    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus(), trainer)
    return _wrapped(backend, **options)


def gpt2_like():
    from tokenizers.pre_tokenizers import ByteLevel

    return _byte_level(ByteLevel(add_prefix_space=False), bos=False)


def gpt2_like_with_bos():
    from tokenizers.pre_tokenizers import ByteLevel

    return _byte_level(ByteLevel(add_prefix_space=False))


def llama3_like():
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return _byte_level(
        Sequence([Split(Regex(words), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    )


def llama2_like():
    """SentencePiece's BPE: a space is set in front, spaces are part of words, unknown bytes fall back."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    lines = [part for text in corpus() for part in text.replace("\n", " ").split(" ")]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    return _wrapped(backend, unk_token="<unk>")


def unigram_like():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=250, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(corpus(), trainer)
    return _wrapped(backend, bos=False, unk_token="<unk>")


def wordpiece_like():
    """BERT's: every text ends in a special token too, which lm-eval then takes for part of the answer."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=["[UNK]", "<s>", "</s>"], show_progress=False
    )
    backend.train_from_iterator(corpus(), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return _wrapped(backend, template=False, unk_token="[UNK]")


TOKENIZERS = {
    make.__name__: make
    for make in (gpt2_like, gpt2_like_with_bos, llama3_like, llama2_like, unigram_like, wordpiece_like)
}


@pytest.fixture(scope="session", params=sorted(TOKENIZERS))
def tokenizer(request):
    return TOKENIZERS[request.param]()


@pytest.fixture(scope="session")
def plain_tokenizer():
    return gpt2_like_with_bos()


@pytest.fixture(scope="session")
def model(plain_tokenizer):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(plain_tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=160,
        initializer_range=0.5,
        bos_token_id=plain_tokenizer.bos_token_id,
        eos_token_id=plain_tokenizer.eos_token_id,
        pad_token_id=plain_tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config).float().eval()
