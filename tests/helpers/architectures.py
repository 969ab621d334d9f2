"""Tiny random models of many architectures."""

import warnings

VOCABULARY = 97


def configurations(head=8):
    """Configurations of three small layers with four heads of width `head`, by architecture.

    Windows are short enough to matter.
    """
    import transformers as t

    with warnings.catch_warnings(action="ignore"):  # importing transformers' models imports torchao
        t.LlamaForCausalLM.__name__  # noqa: B018  # imported on first use

    wide = 4 * head
    base = {
        "vocab_size": VOCABULARY,
        "hidden_size": wide,
        "intermediate_size": 2 * wide,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    grouped = base | {"num_key_value_heads": 2}
    gemma = grouped | {"head_dim": head, "sliding_window": 7, "query_pre_attn_scalar": 8}
    mixed = ["sliding_attention", "full_attention", "sliding_attention"]
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    gpt = {"vocab_size": VOCABULARY, "n_embd": wide, "n_layer": 3, "n_head": 4, "n_positions": 128} | ends
    short = {"vocab_size": VOCABULARY, "hidden_size": wide, "num_hidden_layers": 3} | ends
    return {
        "llama": t.LlamaConfig(**grouped),
        "wide_llama": t.LlamaConfig(**grouped | {"hidden_size": 128, "intermediate_size": 192}),
        "mistral": t.MistralConfig(**grouped, sliding_window=7),
        "qwen2": t.Qwen2Config(**grouped),
        "qwen3": t.Qwen3Config(**grouped, head_dim=head),
        "gemma2": t.Gemma2Config(**gemma, layer_types=mixed),
        "gemma3": t.Gemma3TextConfig(**gemma, layer_types=mixed),
        "phi3": t.Phi3Config(**grouped, sliding_window=9),
        "phi3_longrope": t.Phi3Config(
            **grouped,
            original_max_position_embeddings=48,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * (head // 2),
                "long_factor": [5.0] * (head // 2),
                "original_max_position_embeddings": 48,
            },
        ),
        "gpt2": t.GPT2Config(**gpt),
        "gpt_neox": t.GPTNeoXConfig(**base),
        "opt": t.OPTConfig(**short, ffn_dim=2 * wide, num_attention_heads=4, word_embed_proj_dim=wide),
        "falcon": t.FalconConfig(**short, num_attention_heads=4, alibi=False),
        "olmo": t.OlmoConfig(**base),
        "mixtral": t.MixtralConfig(**grouped, num_local_experts=4),
        "granite": t.GraniteConfig(**grouped, logits_scaling=3.0),
        "cohere": t.CohereConfig(**grouped, logit_scale=0.5),
        "gpt_oss": t.GptOssConfig(
            **grouped,
            head_dim=head,
            num_local_experts=4,
            sliding_window=7,
            layer_types=mixed,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        "bloom": t.BloomConfig(vocab_size=VOCABULARY, hidden_size=wide, n_layer=3, n_head=4, **ends),
        "mpt": t.MptConfig(vocab_size=VOCABULARY, d_model=wide, n_layers=3, n_heads=4),
        "falcon_alibi": t.FalconConfig(**short, num_attention_heads=4, alibi=True),
        "gpt_neo": t.GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=wide,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            window_size=7,
            max_position_embeddings=128,
            **ends,
        ),
        "mamba": t.MambaConfig(**short, state_size=8),
    }


def tiny_model(architecture, dtype="float32", head=8):
    """A random model, its matrices enlarged so that tokens matter to each other."""
    import torch
    import transformers as t

    with warnings.catch_warnings(action="ignore"):  # importing transformers' models imports torchao
        t.LlamaForCausalLM.__name__  # noqa: B018  # imported on first use

    torch.manual_seed(0)
    model = t.AutoModelForCausalLM.from_config(configurations(head)[architecture]).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(3)
    return model.to(getattr(torch, dtype))
