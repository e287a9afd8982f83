"""Changes to a window that leave its class alone, as far as its modality says they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import radians

import torch
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """Random numbers for some rows of a batch, the same however the batch is shared out.

    Attributes:
        generator: of the numbers of the whole batch.
        batch: rows of it.
        rows: those that are here.
    """

    generator: torch.Generator
    batch: int
    rows: slice

    def normal(self, *shape: int) -> Tensor:
        """Standard normal [rows, *shape]."""
        size, on = (self.batch, *shape), self.generator.device
        return torch.randn(size, generator=self.generator, device=on)[self.rows]

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1), [rows, *shape]."""
        size, on = (self.batch, *shape), self.generator.device
        return torch.rand(size, generator=self.generator, device=on)[self.rows]

    def offset(self, most: int) -> Tensor:
        """Whole numbers from −most to most, [rows, 1]."""
        on = self.generator.device
        drawn = torch.randint(-most, most + 1, (self.batch, 1), generator=self.generator, device=on)
        return drawn[self.rows]


Augmentation = Callable[[Tensor, Tensor, Noise], Tensor]
"""(x [B, *window_shape] raw units, std per channel, noise for its rows) → the same shape."""


def jitter(x: Tensor, std: Tensor, noise: Noise) -> Tensor:
    """Noise of up to 5 % of a channel's spread: electronics, quantisation."""
    return x + 0.05 * std * noise.normal(*x.shape[1:]) * _per_sample(x, noise)


def scale(x: Tensor, std: Tensor, noise: Noise) -> Tensor:
    """Gain of each channel off by some 10 %: calibration, another person's strength."""
    off = noise.normal(x.shape[1])
    return x * (1 + 0.1 * off).reshape(*x.shape[:2], *[1] * (x.ndim - 2))


def shift(x: Tensor, std: Tensor, noise: Noise) -> Tensor:
    """Begin up to a quarter of the window earlier or later, going round: [B, C, T]."""
    t = x.shape[2]
    index = (torch.arange(t, device=x.device) + noise.offset(t // 4)) % t
    return x.gather(2, index[:, None].expand_as(x))


def rotate(x: Tensor, std: Tensor, noise: Noise) -> Tensor:
    """Turn axes x, y, z about each of them by some 10°: another mount, another wrist.

    As for wearables by Um et al. 2017 (arXiv 1706.00527): [B, C, T], C in threes, turned alike.
    """
    about = radians(10) * noise.normal(3)
    a, b, c = about.unbind(1)
    o = torch.zeros_like(a)
    skew = torch.stack([o, -c, b, c, o, -a, -b, a, o], 1).reshape(-1, 3, 3)
    axes = x.unflatten(1, (-1, 3))
    return torch.einsum("bij,bnjt->bnit", torch.linalg.matrix_exp(skew), axes).flatten(1, 2)


def flip(x: Tensor, std: Tensor, noise: Noise) -> Tensor:
    """Mirror half of the images left to right: [B, C, H, W]."""
    return torch.where(_per_sample(x, noise) < 0.5, x.flip(-1), x)


def crop(x: Tensor, std: Tensor, noise: Noise) -> Tensor:
    """Move images by up to an eighth of their size, edges repeated: [B, C, H, W]."""
    _, _, h, w = x.shape
    rows = (torch.arange(h, device=x.device) + noise.offset(h // 8)).clamp(0, h - 1)
    columns = (torch.arange(w, device=x.device) + noise.offset(w // 8)).clamp(0, w - 1)
    x = x.gather(2, rows[:, None, :, None].expand_as(x))
    return x.gather(3, columns[:, None, None, :].expand_as(x))


AUGMENTATIONS: dict[str, Augmentation] = {
    "jitter": jitter,
    "scale": scale,
    "shift": shift,
    "rotate": rotate,
    "flip": flip,
    "crop": crop,
}


def augment(x: Tensor, std: Tensor, invariances: tuple[str, ...], noise: Noise) -> Tensor:
    """Apply the named augmentations, one after another.

    Args:
        x: [B, *window_shape], raw units.
        std: training spread per channel, or per sample where windows have a common course, shaped
            to broadcast against x.
        invariances: names, as a modality's ``invariant_to`` declares them.
        noise: for the rows of x, on its device.
    """
    for name in invariances:
        x = AUGMENTATIONS[name](x, std, noise)
    return x


def _per_sample(x: Tensor, noise: Noise) -> Tensor:
    return noise.uniform().reshape(-1, *[1] * (x.ndim - 1))
