"""Changes to a window that leave its class alone, as far as its modality says they do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Augmentation = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""(x [B, *window_shape] raw units, std per channel, generator) → the same shape."""


def jitter(x: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of up to 5 % of a channel's spread: electronics, quantisation."""
    return x + 0.05 * std * _like(x, generator) * _per_sample(x, generator)


def scale(x: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Gain of each channel off by some 10 %: calibration, another person's strength."""
    noise = torch.randn(x.shape[:2], generator=generator, device=x.device)
    return x * (1 + 0.1 * noise).reshape(*x.shape[:2], *[1] * (x.ndim - 2))


def shift(x: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Begin up to a quarter of the window earlier or later, going round: [B, C, T]."""
    t = x.shape[2]
    by = torch.randint(-(t // 4), t // 4 + 1, (len(x), 1), generator=generator, device=x.device)
    index = (torch.arange(t, device=x.device) + by) % t
    return x.gather(2, index[:, None].expand_as(x))


def flip(x: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images left to right: [B, C, H, W]."""
    return torch.where(_per_sample(x, generator) < 0.5, x.flip(-1), x)


def crop(x: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
    """Move images by up to an eighth of their size, edges repeated: [B, C, H, W]."""
    _, _, h, w = x.shape
    n, device = len(x), x.device
    down = torch.randint(-(h // 8), h // 8 + 1, (n, 1), generator=generator, device=device)
    right = torch.randint(-(w // 8), w // 8 + 1, (n, 1), generator=generator, device=device)
    rows = (torch.arange(h, device=device) + down).clamp(0, h - 1)
    columns = (torch.arange(w, device=device) + right).clamp(0, w - 1)
    x = x.gather(2, rows[:, None, :, None].expand_as(x))
    return x.gather(3, columns[:, None, None, :].expand_as(x))


AUGMENTATIONS: dict[str, Augmentation] = {
    "jitter": jitter,
    "scale": scale,
    "shift": shift,
    "flip": flip,
    "crop": crop,
}


def augment(
    x: Tensor, std: Tensor, invariances: tuple[str, ...], generator: torch.Generator
) -> Tensor:
    """Apply the named augmentations, one after another.

    Args:
        x: [B, *window_shape], raw units.
        std: training spread per channel, shaped to broadcast against x.
        invariances: names, as a modality's ``invariant_to`` declares them.
        generator: on the device of x.
    """
    for name in invariances:
        x = AUGMENTATIONS[name](x, std, generator)
    return x


def _like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device)


def _per_sample(x: Tensor, generator: torch.Generator) -> Tensor:
    u = torch.rand(len(x), generator=generator, device=x.device)
    return u.reshape(-1, *[1] * (x.ndim - 1))
