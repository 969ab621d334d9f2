"""A small random model of every architecture for which transformers has a causal language model."""

import inspect
import warnings
from itertools import cycle, islice

VOCABULARY = 97
WINDOW = 7
"""How far back a layer looks that looks back only so far, in tokens, itself included."""
LONGEST = 128
"""Positions that a model knows."""

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_TWO = (
    "num_key_value_heads",
    "num_experts_per_tok",
    "moe_topk",
    "moe_k",
    "linear_num_key_heads",
    "swa_num_key_value_heads",
)
_FOUR = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers"),
    *("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"),
    *("encoder_attention_heads", "linear_num_value_heads", "swa_num_attention_heads", *_EXPERTS),
)
_EIGHT = (
    *("head_dim", "kv_channels", "rotary_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"),
    *("state_size", "mamba_d_state", "mamba_d_head", "mamba_n_heads", "mamba_headdim", "mamba_head_dim"),
    *("mamba_num_heads", "mamba_chunk_size", "chunk_size", "linear_key_head_dim", "linear_value_head_dim"),
    *("index_head_dim", "attention_chunk_size", "swa_head_dim"),
)
_SIXTEEN = (
    *("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"),
    *("hidden_size_per_layer_input",),
)
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim", "lru_width")
_INNER = (
    *("intermediate_size", "ffn_dim", "n_inner", "d_ff", "ffn_hidden_size", "decoder_ffn_dim"),
    *("encoder_ffn_dim",),
)
SMALL = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), LONGEST),
    **dict.fromkeys(("sliding_window", "attention_window_size", "local_attention"), WINDOW),
    **dict.fromkeys(("encoder_layers", "n_group", "topk_group", "n_groups", "mamba_n_groups"), 1),
    **dict.fromkeys(("n_shared_experts",), 1),
    **dict.fromkeys(_TWO, 2),
    **dict.fromkeys(_FOUR, 4),
    **dict.fromkeys(_EIGHT, 8),
    **dict.fromkeys(_SIXTEEN, 16),
    **dict.fromkeys(_HIDDEN, 32),
    **dict.fromkeys(_INNER, 64),
    "is_decoder": True,
    "index_n_heads": 8,
    "index_topk": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""What a configuration is told, of the names that its class knows."""

_ALL_HEADS = {"num_key_value_heads": 4}
_SCALED = {"logit_scale": 1.0}  # Cohere's own is 1/16, and so is what any token can do
# Through more layers than two, what a window's last token means to the next is lost on the way.
_WINDOWS_ALONE = ("ministral", "ministral3", "mistral", "mixtral", "phi3", "phimoe", "starcoder2")
_PATCHES = {"patch_size": 4, "image_size": 8}


def _each(names, told):
    """Each of some names with what all of them are told."""
    return {name: dict(told) for name in names}


OWN = {
    **_each(
        ("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"),
        _ALL_HEADS,
    ),
    **_each(("longcat_flash", "minicpm3", "youtu", "dots3_note_text"), _ALL_HEADS),
    **_each(("cohere", "cohere2", "cohere2_moe"), _SCALED),
    **_each(_WINDOWS_ALONE, {"num_hidden_layers": 2}),
    **_each(("lfm2", "lfm2_moe"), {"layer_types": ["conv", "full_attention"] * 2}),
    **_each(("laguna", "mellum"), {"layer_types": ["full_attention", "sliding_attention"] * 2}),
    "bailing_hybrid": _ALL_HEADS | {"layer_types": ["linear_attention", "full_attention"] * 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "bert-generation": {"is_decoder": True},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}},
        "logit_scale": 1.0,
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 32,
        "indexer_compress_ratio": 4,
    },
    "doge": {"num_hidden_layers": 2, "keep_window_size": 16},
    "minimax_m3_vl_text": {
        "index_n_heads": 2,
        "index_head_dim": 16,
        "rotary_dim": 8,
        "index_block_size": 8,
        "index_topk_blocks": 2,
        "layer_types": ["full_attention", "minimax_m3_sparse"] * 2,
    },
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0, "laurel_rank": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    **_each(("inkling_text", "inkling2_text"), {"rel_extent": 64, "logits_mup_width_multiplier": 1.0}),
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "kimi_linear": _ALL_HEADS
    | {
        "linear_head_dim": 8,
        "linear_num_heads": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "mamba2": {"num_heads": 8, "expand": 2},
    "phi4_multimodal": {
        "num_hidden_layers": 2,
        "vision_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, **_PATCHES},
        "audio_config": {"hidden_size": 32, "intermediate_size": 32, "num_blocks": 1},
    },
    "xlstm": {"chunk_size": 16, "num_heads": 2, "hidden_size": 128},
    "xmod": {"is_decoder": True, "default_language": "en_XX", "languages": ["en_XX"]},
    "zamba": {"layers_block_type": ["linear_attention", "linear_attention", "hybrid", "hybrid"]} | _ALL_HEADS,
    "zamba2": {"layers_block_type": ["linear_attention", "linear_attention", "hybrid", "hybrid"]}
    | _ALL_HEADS,
    "zaya": {"num_experts_per_tok": 1},
}
"""What an architecture must be told beside SMALL, or in its place."""

_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    **_PATCHES,
}
TOWERS = {
    "gemma3": ("gemma3_text", _TOWER),
    "gemma4": ("gemma4_text", _TOWER | {"num_key_value_heads": 2, "head_dim": 16}),
    "llama4": (
        "llama4_text",
        _TOWER | {"vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32},
    ),
    "mllama": (
        "mllama_text_model",
        _TOWER
        | {
            "num_global_layers": 1,
            "attention_heads": 2,
            "max_num_tiles": 1,
            "supported_aspect_ratios": [[1, 1]],
        },
    ),
    "qwen3_5": ("qwen3_5_text", {"hidden_size": 32, "depth": 1, "num_heads": 2, "out_hidden_size": 32}),
    "qwen3_5_moe": (
        "qwen3_5_moe_text",
        {"hidden_size": 32, "depth": 1, "num_heads": 2, "out_hidden_size": 32},
    ),
}
"""Models of text and pictures: kind -> the kind of their texts, and what the part for pictures is told."""

_WHOLE = "its parts for pictures or sound are no smaller than those of the real model"
LEFT_OUT = {
    **dict.fromkeys(("emu3", "fuyu", "gemma4_unified", "got_ocr2", "moss_transcribe_diarize"), _WHOLE),
    **dict.fromkeys(("dots3_note", "qwen4_exp"), f"{_WHOLE}; that of its text is in the table"),
    "blt": "it reads bytes in patches, and its parts are no smaller than those of the real model",
    "gemma3n": "it needs timm; that of its text is in the table",
    **dict.fromkeys(
        ("gemma4_assistant", "gemma4_unified_assistant"), "it drafts for another model and is none by itself"
    ),
    **dict.fromkeys(("musicgen", "musicgen_melody"), "it makes sound, not text"),
    "reformer": "it cannot be differentiated outside training, so that the farthest token is not known",
}
"""Architectures that are not built, and why."""

VARIANTS = {
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "phi3, LongRoPE": (
        "phi3",
        {
            "sliding_window": None,
            "original_max_position_embeddings": 48,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [5.0] * 4,
                "original_max_position_embeddings": 48,
            },
        },
    ),
    "qwen2, windows": ("qwen2", {"use_sliding_window": True, "max_window_layers": 2}),
}
"""Architectures that are several: name -> kind and what it is told."""


def kinds():
    """transformers' names of the architectures, one for each class of models, and the names above."""
    with warnings.catch_warnings(action="ignore"):
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as KNOWN

    first = {}
    for kind, model in KNOWN.items():
        first.setdefault(model if isinstance(model, str) else model[0], kind)
    first["LlamaForCausalLM"] = "llama"
    return sorted([*first.values(), *VARIANTS])


def configuration(name):
    """A small configuration of an architecture: four layers, each of the kinds that its own default has."""
    with warnings.catch_warnings(action="ignore"):
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, more = VARIANTS.get(name, (name, {}))
    if kind in TOWERS:
        text, tower = TOWERS[kind]
        return CONFIG_MAPPING[kind](text_config=configuration(text), vision_config=tower)
    made = CONFIG_MAPPING[kind]
    told = {key: value for key, value in SMALL.items() if key in _names(made)} | OWN.get(kind, {}) | more
    return _mixed(made, told, made(**told))


def _names(made):
    """What a class of configurations can be told."""
    known = set(inspect.signature(made.__init__).parameters) | set(getattr(made, "attribute_map", {}))
    return known.union(*(inspect.get_annotations(parent) for parent in made.__mro__))


def _mixed(made, told, config):
    """The configuration with all kinds of layers that the class's default has, where four hold them."""
    with warnings.catch_warnings(action="ignore"):
        wanted = list(dict.fromkeys(getattr(made(), "layer_types", None) or []))
    have = list(getattr(config, "layer_types", None) or [])
    if "layer_types" in told or not have or set(wanted) <= set(have) or len(wanted) > len(have):
        return config
    return made(**told, layer_types=list(islice(cycle(wanted), len(have))))


def model(name, seed=0):
    """A random model of an architecture, in float32. Raises whatever transformers raises."""
    import torch
    import transformers

    torch.manual_seed(seed)
    with warnings.catch_warnings(action="ignore"):
        return transformers.AutoModelForCausalLM.from_config(configuration(name)).float().eval()
