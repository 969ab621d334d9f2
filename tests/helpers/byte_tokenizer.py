"""A tokenizer of bytes with a chat template, made on the spot."""

CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"


def a_tokenizer(*, bos: bool = True, chat: str | None = CHAT):
    """Bytes as tokens, 0 and 1 before them for the beginning and the end of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    reads = Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, []))
    reads.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reads.decoder = decoders.ByteLevel()
    if bos:
        reads.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    made = PreTrainedTokenizerFast(tokenizer_object=reads, bos_token="<s>", eos_token="</s>")
    made.chat_template = chat
    return made
