"""The autoencoder of the paper and a training step of it in torch, for comparison.

The layers, their order and the numbers that are trained are those of
`models.AutoencoderKL`, so that both do the same work.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch_layers import Kind, Layout, ResBlock, conv

GROUPS, Z_CHANNELS = 32, 3


class AttentionBlock(nn.Module):
    """x + attention(GroupNorm(x)), one head, projections of the kind."""

    def __init__(self, kind: Kind, width: int, layout: Layout):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.query, self.key, self.value, self.output = (
            conv(kind, width, size=1, layout=layout) for _ in range(4)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] to the same shape."""
        h = self.norm(x)
        q, k, v = (
            project(h).flatten(2).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        return x + self.output(y.transpose(1, 2).reshape(x.shape))


class Autoencoder(nn.Module):
    """Encoder, Gaussian latent and decoder; 2 resamplings, `blocks` Res a level."""

    def __init__(self, kind: Kind, width: int, blocks: int, layout: Layout):
        super().__init__()

        def residual(count: int) -> Iterator[nn.Module]:
            yield from (ResBlock(kind, width, GROUPS, layout) for _ in range(count))

        def middle() -> Iterator[nn.Module]:
            yield from residual(1)
            yield AttentionBlock(kind, width, layout)
            yield from residual(1)

        def out(channels: int) -> Iterator[nn.Module]:
            yield nn.GroupNorm(GROUPS, width, eps=1e-6)
            yield nn.SiLU()
            yield nn.Conv2d(width, channels, 3, padding=1)

        down = (conv(kind, width, stride=2, layout=layout) for _ in range(2))
        up = (
            nn.Sequential(nn.Upsample(scale_factor=2), conv(kind, width, layout=layout))
            for _ in range(2)
        )
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            *residual(blocks),
            next(down),
            *residual(blocks),
            next(down),
            *residual(blocks),
            *middle(),
            *out(2 * Z_CHANNELS),
            nn.Conv2d(2 * Z_CHANNELS, 2 * Z_CHANNELS, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(Z_CHANNELS, Z_CHANNELS, 1),
            nn.Conv2d(Z_CHANNELS, width, 3, padding=1),
            *middle(),
            *residual(blocks + 1),
            next(up),
            *residual(blocks + 1),
            next(up),
            *residual(blocks + 1),
            *out(3),
        )
        if layout == "channels_last" and kind == "dense":
            self.to(memory_format=torch.channels_last)  # pyright: ignore

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Reconstruction of x [B, 3, H, W], and mean and log variance of its code."""
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        logvar = logvar.clamp(-30, 20)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        return self.decoder(z), mean, logvar


class Training:
    """An autoencoder with Adam, clipping and a moving average, as the trainer has."""

    def __init__(
        self, kind: Kind, width: int, blocks: int = 2, *, layout: Layout, dtype: str
    ):
        self.model = Autoencoder(kind, width, blocks, layout)
        self._half = dtype == "bfloat16"
        self._values: list[Any] = list(self.model.parameters())
        self._average: list[Any] = [value.detach().clone() for value in self._values]
        self._move = get_ema_multi_avg_fn(0.999)
        self._adam = torch.optim.Adam(self._values, lr=1e-3, foreach=True)

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(value.numel() for value in self._values)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The forward pass alone, of uint8 images [B, 3, H, W]."""
        with torch.no_grad():
            return self._apply(images)[1:]

    def step(self, images: torch.Tensor) -> torch.Tensor:
        """One step on uint8 images; returns the loss."""
        u, y, mean, logvar = self._apply(images)
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar)
        kl = divergence.sum((1, 2, 3)).mean()
        loss = functional.mse_loss(y.float(), u) + 1e-6 * kl
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        self.update()
        return loss.detach()

    def update(self) -> None:
        """What follows the backward pass: clipping, Adam, moving average."""
        nn.utils.clip_grad_norm_(self._values, 1.0, foreach=True)
        self._adam.step()
        with torch.no_grad():
            self._move(self._average, self._values, 0)

    def _apply(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        u = images.float() / 127.5 - 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            return u, *self.model(u)
