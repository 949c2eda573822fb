"""float32 products out of those of bfloat16, of which the matrix units of a GPU do many times as many."""

import torch
from torch import Tensor, nn


class SplitLinear(nn.Module):
    """A layer of float32 whose products are those of bfloat16, for units that have no others of that speed.

    Values and weights are sums of two bfloat16, high and low. Of the four products the one of both lows is
    left out, which is as small as what rounds off. The other three are one: (high, high, low) times
    (high, low, high).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        high, low = split_float32(layer.weight.detach())
        self.register_buffer("weight", torch.cat([high, low, high], dim=1))  # out, 3 in
        self.register_buffer("bias", layer.bias.detach())

    def forward(self, values: Tensor, outputs: slice) -> Tensor:
        """(..., in) to (..., out), float32."""
        high, low = split_float32(values)
        rows = torch.cat([high, high, low], dim=-1).flatten(0, -2)
        products = _multiply(rows, self.weight[outputs].T)
        return products.reshape(*values.shape[:-1], -1) + self.bias[outputs]


def split_float32(values: Tensor) -> tuple[Tensor, Tensor]:
    """Two bfloat16 whose sum is `values` to 2^-17 of its size; NaN and infinity give NaN.

    By the bits, since a compiler takes float32 to bfloat16 and back for nothing, and leaves it out.
    """
    half, kept = 1 << 15, -1 << 16
    high = ((values.view(torch.int32) + half) & kept).view(torch.float32)
    return high.bfloat16(), (values - high).bfloat16()


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """Of bfloat16, summed up in float32 and not rounded; a CPU, which has no such product, takes float32."""
    if left.is_cpu:
        return left.float() @ right.float()
    return torch.mm(left, right, out_dtype=torch.float32)


def split_layers(module: nn.Module) -> None:
    """Every linear layer inside, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, SplitLinear(child))
        else:
            split_layers(child)
