"""The same function as `TracedViT` in fewer operations, for the engines that compile it.

What is exact algebra is done once, on the weights: the pixels' normalisation goes into the patch embedding,
the affine part of each norm into the layer behind it, the attention's scale into the query, what a local
perception unit adds to into its convolution. The last block computes its class token only, since nothing
reads the others. The proxy is part of the graph.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.architecture import Architecture, map_patches
from pipeline.learned import Learned, layer_features
from pipeline.planes import SplitLinear, split_layers
from pipeline.proxies import Proxy
from pipeline.vit import TracedViT, Weights, split_positions


class _Affine(NamedTuple):
    """weight (out, in) and bias (out,) of a linear layer."""

    weight: Tensor
    bias: Tensor


class FusedViT(nn.Module):
    """uint8 (B, 3, size, size) to logits, embedding and trace as in `Pass`, and the proxy (B,) where named.

    dtype: of the linear layers; tokens, norms and what is returned stay float32.
    divisible: attention asks one query more where their number is prime (257 at 64 px in patches of 4). A
    library that divides the queries of one image among threads then can, where it had only the heads.
    split: linear layers multiply float32 as sums of two bfloat16.
    """

    position: Tensor
    first: Tensor
    learned: Tensor | None

    def __init__(
        self,
        weights: Weights,
        size_px: int,
        proxy: Proxy | None,
        dtype: torch.dtype = torch.float32,
        divisible: bool = False,
        split: bool = False,
    ) -> None:
        super().__init__()
        shape, reference = weights.architecture, TracedViT(weights, size_px)
        state = {name: value.float() for name, value in reference.vit.state_dict().items()}
        self.proxy = proxy
        # On the device beforehand: nothing may be sent there while a graph is captured.
        learned = torch.tensor(proxy.weights, dtype=torch.float32) if isinstance(proxy, Learned) else None
        self.register_buffer("learned", learned)
        patches, bias = _fold_pixels(state, reference.mean, reference.std)
        self.patches = nn.Parameter(patches)
        first, position = split_positions(state["pos_embed"], state["cls_token"], state.get("reg_token"))
        self.register_buffer("position", position + bias)
        self.register_buffer("first", first)
        spare = int(divisible and _is_prime(shape.count_tokens(size_px)))
        self.blocks = nn.ModuleList(
            _Block(_part(state, f"blocks.{index}."), shape, spare, cls_only=index == shape.depth - 1)
            for index in range(shape.depth)
        )
        self.norm_pre = _norm(state, "norm_pre.", shape) if shape.pre_norm else None
        self.norm = _norm(state, "norm.", shape)
        self.head = _linear(_Affine(state["head.weight"], state["head.bias"]))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                layer.to(dtype)
        if split:
            split_layers(self)
        self.patches.data = self.patches.to(dtype)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        tokens = self.embed(images)
        steps: list[Tensor] = []
        update: Tensor | None = None
        for block in self.blocks:
            cls, tokens, update = block(tokens, update)
            steps.append(cls)
        assert update is not None
        return self.finish(tokens, update, *steps)

    def embed(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, size, size) to tokens (B, N, D)."""
        patches = F.conv2d(images.to(self.patches.dtype), self.patches, stride=self.patches.shape[-1])
        tokens = patches.flatten(2).transpose(1, 2).float() + self.position
        tokens = torch.cat([self.first.expand(images.shape[0], -1, -1), tokens], dim=1)
        return self.norm_pre(tokens) if self.norm_pre is not None else tokens

    def finish(self, tokens: Tensor, update: Tensor, *steps: Tensor) -> tuple[Tensor, ...]:
        """What the last block returns, and the class tokens before every block, (B, D) each."""
        trace = torch.stack([*steps, (tokens + update)[:, 0]], dim=1)
        embedding = self.norm(trace[:, -1])
        logits = _apply(self.head, embedding).float()
        result = logits, embedding, trace
        return (*result, self._score(trace, logits)) if self.proxy else result

    def _score(self, trace: Tensor, logits: Tensor) -> Tensor:
        assert self.proxy is not None
        if self.learned is None:
            score: Tensor = self.proxy(trace, logits)
        else:
            assert isinstance(self.proxy, Learned)
            score = layer_features(trace, logits) @ self.learned + self.proxy.bias
        return score


class _Block(nn.Module):
    """Attention and MLP, each behind a norm without affine part and added to the tokens.

    What the MLP adds is left to the block behind, which so adds and normalises at once, also where a compiler
    sees one block at a time. spare: queries of zeros that are asked beside those of the tokens. cls_only: the
    class token asks all tokens, and only it goes on.
    """

    def __init__(self, state: Mapping[str, Tensor], shape: Architecture, spare: int, cls_only: bool) -> None:
        super().__init__()
        self.width, self.heads, self.epsilon = shape.width, shape.heads, shape.epsilon
        self.spare, self.cls_only = spare, cls_only
        self.activate = _quick_gelu if shape.quick_gelu else F.gelu
        qkv = _fold_norm(state, "norm1", "attn.qkv")
        scale = torch.ones(3 * shape.width)
        scale[: shape.width] = (shape.width // shape.heads) ** -0.5
        self.qkv = _linear(_Affine(qkv.weight * scale[:, None], qkv.bias * scale))
        self.out = _linear(_Affine(state["attn.proj.weight"], state["attn.proj.bias"]))
        self.widen = _linear(_fold_norm(state, "norm2", "mlp.fc1"))
        self.narrow = _linear(_Affine(state["mlp.fc2.weight"], state["mlp.fc2.bias"]))
        self.local = _local(state) if "local.weight" in state else None

    def forward(self, tokens: Tensor, update: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, D) and what is yet to be added to them, None for the first block's.

        Returns the class token that came in, (B, D), and tokens and what to add, (B, N or 1, D).
        """
        tokens = tokens if update is None else tokens + update
        if self.local is not None:
            tokens = map_patches(self.local, tokens)
        going_on = tokens[:, :1] if self.cls_only else tokens
        attended = F.scaled_dot_product_attention(*self._ask(self._normalise(tokens)), scale=1.0)
        attended = attended[:, :, : going_on.shape[1]].transpose(1, 2).reshape(going_on.shape)
        going_on = going_on + _apply(self.out, attended)
        widened = self.activate(_apply(self.widen, self._normalise(going_on)))
        return tokens[:, 0], going_on, _apply(self.narrow, widened)

    def _normalise(self, tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, tokens.shape[-1:], eps=self.epsilon)

    def _ask(self, normalised: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, (B, heads, N or 1, D / heads)."""
        count, width = normalised.shape[1], self.width
        if self.cls_only:
            query = _apply(self.qkv, normalised[:, :1], slice(0, width))
            both = _apply(self.qkv, normalised, slice(width, 3 * width))
            split = query, both[..., :width], both[..., width:]
            return tuple(_split_heads(values, self.heads) for values in split)  # type: ignore[return-value]
        qkv = _apply(self.qkv, normalised).reshape(-1, count, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return F.pad(query, (0, 0, 0, self.spare)) if self.spare else query, key, value


def _quick_gelu(values: Tensor) -> Tensor:
    return values * torch.sigmoid(1.702 * values)


def _is_prime(count: int) -> bool:
    return count > 1 and all(count % divisor for divisor in range(2, math.isqrt(count) + 1))


def _apply(layer: nn.Module, values: Tensor, outputs: slice | None = None) -> Tensor:
    """A linear layer, in the precision of its weights; `outputs`: only these."""
    if isinstance(layer, SplitLinear):
        return layer(values, outputs or slice(None))  # type: ignore[no-any-return]
    assert isinstance(layer, nn.Linear)
    values = values.to(layer.weight.dtype)
    if outputs is None:
        return layer(values)  # type: ignore[no-any-return]
    return F.linear(values, layer.weight[outputs], layer.bias[outputs])


def _split_heads(values: Tensor, heads: int) -> Tensor:
    """(B, N, D) to (B, heads, N, D / heads)."""
    batch, count, width = values.shape
    return values.reshape(batch, count, heads, width // heads).transpose(1, 2)


def _fold_pixels(state: Mapping[str, Tensor], mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Patch weights for pixels of 0..255 and the constant that the mean leaves, (D,)."""
    weight = state["patch_embed.proj.weight"] / std
    constant = -(weight * mean).sum(dim=(1, 2, 3))
    bias = state.get("patch_embed.proj.bias")
    return weight, constant if bias is None else constant + bias


def _fold_norm(state: Mapping[str, Tensor], norm: str, layer: str) -> _Affine:
    """W (g x + h) + b = (W g) x + (W h + b)."""
    weight, bias = state[f"{layer}.weight"], state[f"{layer}.bias"]
    gain, shift = state[f"{norm}.weight"], state[f"{norm}.bias"]
    return _Affine(weight * gain, bias + weight @ shift)


def _norm(state: Mapping[str, Tensor], prefix: str, shape: Architecture) -> nn.LayerNorm:
    layer = nn.LayerNorm(shape.width, shape.epsilon)
    layer.load_state_dict(_part(state, prefix))
    return layer


def _local(state: Mapping[str, Tensor]) -> nn.Conv2d:
    """The convolution whose middle tap also carries the patches on."""
    weight, bias = state["local.weight"].clone(), state["local.bias"]
    weight[:, :, 1, 1] += 1
    width = len(bias)
    layer: nn.Conv2d = nn.utils.skip_init(nn.Conv2d, width, width, kernel_size=3, padding=1, groups=width)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _linear(affine: _Affine) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, affine.weight.shape[1], affine.weight.shape[0])
    layer.load_state_dict(affine._asdict())
    return layer


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
