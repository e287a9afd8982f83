"""Modality encoders f_i: a normalised window in, its latent H_i [B, d] out. All export to ONNX."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robult_edge.errors import SpecError
from robult_edge.modality import ModalitySpec
from robult_edge.nn.minirocket import MiniRocket


class Conv1d(nn.Module):
    """Three convolutions over time; mean and maximum of what they found, and of the input itself.

    Levels and ranges of the raw channels are kept beside the learned features: with few labels
    they are the first thing that generalises. Batch norms fold into the convolutions at export.
    """

    def __init__(self, spec: ModalitySpec, d: int) -> None:
        super().__init__()
        c, t = len(spec.channels), spec.window
        strides = [2 if t >= least else 1 for least in (16, 32, 64)]
        self.features = nn.Sequential(
            *_conv(nn.Conv1d(c, 32, 7, strides[0], 3, bias=False), nn.BatchNorm1d(32)),
            *_conv(nn.Conv1d(32, 64, 5, strides[1], 2, bias=False), nn.BatchNorm1d(64)),
            *_conv(nn.Conv1d(64, 64, 5, strides[2], 2, bias=False), nn.BatchNorm1d(64)),
        )
        self.project = nn.Linear(2 * 64 + 4 * c, d)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T] → [B, d]."""
        found = self.features(x)
        mean = x.mean(2)
        deviation = ((x - mean[:, :, None]).square().mean(2) + 1e-4).sqrt()
        parts = [found.mean(2), found.amax(2), mean, deviation, x.amin(2), x.amax(2)]
        return self.project(torch.cat(parts, 1))


class Rocket(nn.Module):
    """MiniRocket's fixed features beside the learned ones of `Conv1d`.

    The fixed ones see details that a young convolution does not, and are many, and the same from
    the first step on: what is made of them begins at nothing, and slowly, so that they do not drown
    the learned ones. They cannot learn to withstand noise; what is made of them can. So while
    training, one window in four reaches them with noise of 2 to 50 % of a channel's spread. A
    feature that lies further out than in training counts as three of its spreads.
    """

    def __init__(self, spec: ModalitySpec, d: int) -> None:
        super().__init__()
        self.learned = Conv1d(spec, d)
        self.fixed = MiniRocket(len(spec.channels), spec.window)
        made = nn.Linear(self.fixed.size, d, bias=False)
        nn.init.zeros_(made.weight)
        self.project = nn.Sequential(nn.Dropout(0.5), made)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T], each channel's spread 1, → [B, d]."""
        seen = _noisy(x) if self.training else x
        return self.learned(x) + self.project(self.fixed(seen).clamp(-3, 3) / 4)


class Gru(nn.Module):
    """A GRU over time steps (thinned by a strided convolution); its last and its mean state."""

    def __init__(self, spec: ModalitySpec, d: int) -> None:
        super().__init__()
        step = 4 if spec.window >= 64 else 1
        self.thin = nn.Conv1d(len(spec.channels), 32, step, step)
        self.gru = nn.GRU(32, 64, batch_first=True)
        self.project = nn.Linear(2 * 64, d)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T] → [B, d]."""
        states, _ = self.gru(torch.relu(self.thin(x)).transpose(1, 2))
        return self.project(torch.cat([states[:, -1], states.mean(1)], 1))


class Transformer(nn.Module):
    """Patches of the window, two pre-norm attention blocks, their mean."""

    def __init__(self, spec: ModalitySpec, d: int) -> None:
        super().__init__()
        step = max(1, spec.window // 16)
        self.patch = nn.Conv1d(len(spec.channels), 48, step, step)
        self.position = nn.Parameter(0.02 * torch.randn(spec.window // step, 48))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(48, 4, 96, 0.1, batch_first=True, norm_first=True)
                for _ in range(2)
            )
        )
        self.project = nn.Linear(48, d)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T] → [B, d]."""
        return self.project(self.blocks(self.patch(x).transpose(1, 2) + self.position).mean(1))


class Mlp(nn.Module):
    """Two layers on the flattened window: for vectors."""

    def __init__(self, spec: ModalitySpec, d: int) -> None:
        super().__init__()
        size = 1
        for n in spec.window_shape:
            size *= n
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(size, 64, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Linear(64, d),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T] or [B, C, H, W] → [B, d]."""
        return self.layers(x)


class Conv2d(nn.Module):
    """Three strided convolutions over an image, mean and maximum over its plane."""

    def __init__(self, spec: ModalitySpec, d: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_conv(nn.Conv2d(len(spec.channels), 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16)),
            *_conv(nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)),
            *_conv(nn.Conv2d(32, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)),
        )
        self.project = nn.Linear(2 * 64, d)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] → [B, d]."""
        found = self.features(x)
        return self.project(torch.cat([found.mean((2, 3)), found.amax((2, 3))], 1))


def _noisy(x: Tensor) -> Tensor:
    """x [B, C, T] with noise in one window of four, 0.02 to 0.5 strong, one octave like another."""
    level, chosen = torch.rand(2, len(x), 1, 1, device=x.device)
    return x + torch.randn_like(x) * 0.02 * 25**level * (chosen < 0.25)


def _conv(convolution: nn.Module, norm: nn.Module) -> tuple[nn.Module, ...]:
    return convolution, norm, nn.ReLU()


ENCODERS: dict[str, Callable[[ModalitySpec, int], nn.Module]] = {
    "rocket": Rocket,
    "conv1d": Conv1d,
    "gru": Gru,
    "transformer": Transformer,
    "mlp": Mlp,
    "conv2d": Conv2d,
}
"""Name → builder (spec, d). A builder's module maps [B, *window_shape] to [B, d]."""


def default_encoder(spec: ModalitySpec) -> str:
    """The encoder that suits the window's shape."""
    return suitable(spec)[0]


def suitable(spec: ModalitySpec) -> tuple[str, ...]:
    """Encoders for windows of a modality's shape, the one to try first first."""
    if spec.size is not None:
        return "conv2d", "mlp"
    if spec.window < 8:
        return ("mlp",)
    long = ("rocket",) if spec.window >= 32 else ()
    return *long, "conv1d", "transformer", "gru", "mlp"


def build(name: str, spec: ModalitySpec, d: int) -> nn.Module:
    """The named encoder for a modality.

    Raises:
        SpecError: no such encoder, or it does not take windows of this shape.
    """
    if name not in ENCODERS:
        raise SpecError(
            f"modality {spec.name!r}: encoder is {name!r}; it must be one of {', '.join(ENCODERS)}"
        )
    if name != "mlp" and (name == "conv2d") != (spec.size is not None):
        fit = default_encoder(spec)
        raise SpecError(
            f"modality {spec.name!r}: encoder {name!r} does not take windows of shape "
            f"{spec.window_shape}; use {fit!r} or 'mlp'"
        )
    return ENCODERS[name](spec, d)
