"""Tiny models whose linear layers are packed by bitsandbytes or gptqmodel."""

import pytest
from architectures import tiny_model


def in_4_bits(quant_type="nf4", double=False):
    """A llama wide enough for every kernel of bitsandbytes, its linear layers in 4 bits, some square."""
    bnb = pytest.importorskip("bitsandbytes")
    import torch

    model = tiny_model("wide_llama")
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            packed = bnb.nn.Linear4bit(
                module.in_features,
                module.out_features,
                bias=False,
                compute_dtype=module.weight.dtype,
                quant_type=quant_type,
                compress_statistics=double,
            )
            packed.weight = bnb.nn.Params4bit(
                module.weight.data, requires_grad=False, quant_type=quant_type, compress_statistics=double
            )
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, packed.to("cpu"))
    return model.eval()


def in_gptq(backend, dtype, desc_act):
    """A tiny model whose linear layers are gptqmodel's, with random codes, groups shuffled if wished."""
    pytest.importorskip("gptqmodel")
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.nn_modules.qlinear.torch_aten_kernel import TorchAtenLinear

    model = tiny_model("olmo", dtype)  # its heads share no keys, so every matrix packs in 32 columns
    kind = {"torch": TorchLinear, "aten": TorchAtenLinear}[backend]
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, _packed(kind, module, desc_act))
    return model.eval()


def _packed(kind, linear, desc_act):
    import torch

    torch.manual_seed(linear.in_features)
    group = 32
    layer = kind(
        bits=4,
        group_size=group,
        sym=False,
        desc_act=desc_act,
        in_features=linear.in_features,
        out_features=linear.out_features,
        bias=False,
    )
    order = torch.randperm(linear.in_features) if desc_act else torch.arange(linear.in_features)
    g_idx = torch.empty(linear.in_features, dtype=torch.int32)
    g_idx[order] = (torch.arange(linear.in_features) // group).int()
    scales = torch.rand(linear.out_features, linear.in_features // group) * 0.02 + 0.01
    zeros = torch.randint(4, 12, scales.shape).float()
    layer.pack(
        torch.nn.Linear(linear.in_features, linear.out_features, bias=False).float(), scales, zeros, g_idx
    )
    layer.optimized = True  # or it compiles for half a minute
    layer.post_init()
    return layer.eval()
