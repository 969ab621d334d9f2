"""The longest sequence a model sees is lm-eval's own answer, found before any weights are loaded."""

import warnings

import pytest
from tiny_models import edit_json, save_tokenizer

from qeval.base.records import Scheme, Variant
from qeval.load import model as models
from qeval.score.harness import door

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning")]
WIDTH = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
VOCABULARY = {"vocab_size": 64}


def configurations():
    """Small configurations whose length stands in all the places where one can stand."""
    import transformers as t

    with warnings.catch_warnings(action="ignore"):  # importing transformers' models imports torchao
        t.LlamaForCausalLM.__name__  # noqa: B018  # imported on first use
    heads = {"num_key_value_heads": 2, "head_dim": 8}
    text = t.Gemma3TextConfig(**WIDTH, **VOCABULARY, **heads, max_position_embeddings=4321)
    vision = {**WIDTH, "image_size": 28, "patch_size": 14}
    gpt = {**VOCABULARY, "n_embd": 32, "n_layer": 1, "n_head": 4}
    return {
        "llama": t.LlamaConfig(**WIDTH, **VOCABULARY, max_position_embeddings=345),
        "gpt2": t.GPT2Config(**gpt, n_positions=234),
        "gptj": t.GPTJConfig(**gpt, n_positions=123, rotary_dim=4),
        "opt": t.OPTConfig(**VOCABULARY, hidden_size=32, ffn_dim=32, num_hidden_layers=1,
                           num_attention_heads=4,
                           word_embed_proj_dim=32, max_position_embeddings=222),
        "gemma3": t.Gemma3Config(text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4),
        "dbrx": t.DbrxConfig(**VOCABULARY, d_model=32, n_heads=4, n_layers=1, max_seq_len=456,
                             ffn_config={"ffn_hidden_size": 32, "moe_num_experts": 2, "moe_top_k": 1},
                             attn_config={"kv_n_heads": 2, "rope_theta": 1e4}),
        "rwkv": t.RwkvConfig(**VOCABULARY, hidden_size=32, num_hidden_layers=2, context_length=567),
        "mpt": t.MptConfig(**VOCABULARY, d_model=32, n_heads=4, n_layers=1, max_seq_len=678),
        "bloom": t.BloomConfig(**VOCABULARY, hidden_size=32, n_layer=1, n_head=4),
        "falcon": t.FalconConfig(**VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=4),
        "mamba": t.MambaConfig(**VOCABULARY, hidden_size=32, num_hidden_layers=1, state_size=4),
    }  # fmt: skip


NAMES = ("llama", "gpt2", "gptj", "opt", "gemma3", "dbrx", "rwkv", "mpt", "bloom", "falcon", "mamba")


@pytest.mark.parametrize("told", [None, 77])
@pytest.mark.parametrize("name", NAMES)
def test_the_length_is_the_one_that_lm_eval_finds_in_the_loaded_model(name, told, tmp_path):
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM

    config = configurations()[name]
    config.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    if told:
        edit_json(tmp_path / "tokenizer_config.json", model_max_length=told)
    tokenizer, found = models.load_tokenizer(Variant("v", str(tmp_path), Scheme("fp16")), cache_dir=tmp_path)
    live = AutoModelForCausalLM.from_config(config)
    lm = HFLM(pretrained=live, tokenizer=tokenizer, batch_size=1)
    assert door.longest(found, tokenizer) == lm.max_length == EXPECTED.get(name, told or 2048)


EXPECTED = {
    "llama": 345,
    "gpt2": 234,
    "gptj": 123,
    "opt": 222,
    "gemma3": 4321,
    "dbrx": 456,
    "rwkv": 567,
    "falcon": 2048,
}
"""Falcon tells 2048 by default. The others ask the tokenizer, and take 2048 where that tells none."""
