"""gptqmodel's AWQ layer, multiplying in the type of the activations instead of in 16 bits."""

from __future__ import annotations

from typing import Any

import torch
from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
from torch import Tensor


class AwqOwnDtypeLinear(AwqTorchLinear):  # type: ignore[misc]  # gptqmodel is not followed by mypy
    """The parent casts activations to float16, whose products are slow on a CPU and rounded."""

    def dequantize_weight(self) -> Tensor:
        """The weight as (in, out) in the dtype of the scales, float16: what GPU kernels multiply by."""
        found: Tensor = dequantize_gemm(
            self.qweight, self.qzeros, self.scales, bits=self.bits, group_size=self.group_size
        )
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out), in the dtype of `x`."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        out = torch.nn.functional.linear(x, self.dequantize_weight().to(x.dtype).t(), bias)
        return out if self.adapter is None else self.adapter.apply(x=x, out=out)


def compute_in_own_dtype(model: Any) -> None:
    """Make the model's AWQ layers, loaded with gptqmodel's torch kernel, multiply in their input's dtype."""
    for module in model.modules():
        if type(module) is AwqTorchLinear:
            module.__class__ = AwqOwnDtypeLinear  # keeps buffers and name
