"""The Robult network (arXiv 2509.03477), with the paper's symbols.

    H_i = f_i(X_i)   U_i = g_i(H_i)   Z_i = g_0(H_i)   Ĥ_i = r_i(U_i, Z_i)   ŷ_i = c(Z_i)
    H_0 = f_0(H_A)   S_A = g_0(H_0)                                          ŷ_A = c(S_A)

Two kinds of modules leave it for inference: ``branch(name)``, X_i → (ŷ_i, H_i), and ``head()``,
(H, alive) → ŷ_A for any alive subset A.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from robult_edge.course import course
from robult_edge.errors import SpecError
from robult_edge.modality import ModalitySpec
from robult_edge.nn import encoders as enc

ClassifierInput = Literal["z", "zu"]


class Normalise(nn.Module):
    """(x − mean) / std, with the training statistics of each channel; raw units in.

    Where windows have a common course, with those of each of its samples: see `fit`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModalitySpec) -> None:
        super().__init__()
        if spec.stats is None:
            raise SpecError(f"modality {spec.name!r}: stats are missing; take them from training")
        shape = (-1, *[1] * (len(spec.window_shape) - 1))
        # Of an image one number per plane; of a series room for one per sample.
        room = (1, 1, 1) if spec.size else (1, spec.window)
        for name, numbers in (("mean", spec.stats.mean), ("std", spec.stats.std)):
            self.register_buffer(name, torch.tensor(numbers).reshape(shape).repeat(room))

    def fit(self, x: Tensor) -> None:
        """Measure windows by their usual course, if they have one: x [n, C, T], raw units."""
        mean, spread = map(torch.from_numpy, course(self(x).numpy()))
        self.mean += self.std * mean
        self.std *= spread

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Encoders(nn.ModuleList):
    """f_i of every modality: raw windows in, H [B, M, d] out.

    Args:
        modalities: with statistics.
        width: d.
        encoders: encoder name per modality; the default by shape where not given.
    """

    def __init__(
        self, modalities: tuple[ModalitySpec, ...], width: int, encoders: Mapping[str, str]
    ) -> None:
        chosen = encoder_names(modalities, encoders)
        super().__init__(
            nn.Sequential(Normalise(spec), enc.build(chosen[spec.name], spec, width), nn.ReLU())
            for spec in modalities
        )
        self.names = tuple(m.name for m in modalities)
        self.width = width

    def fit(
        self,
        windows: Mapping[str, np.ndarray],
        rng: np.random.Generator,
        in_phase: Collection[str] = (),
    ) -> None:
        """Learn windows' usual course, and draw fixed features; no label is looked at.

        Args:
            windows: per modality some of the training windows [n, *window_shape], raw units.
            rng: of the draws.
            in_phase: modalities whose windows may have a course: not images, and nothing that is
                trained on windows shifted in time.
        """
        for i, name in enumerate(self.names):
            normalise, encoder, _ = self[i].children()
            x = torch.from_numpy(windows[name])
            assert isinstance(normalise, Normalise)
            if name in in_phase:
                normalise.fit(x)
            if isinstance(encoder, enc.Rocket) and len(x):
                encoder.fixed.fit(normalise(x), rng)

    @property
    def in_phase(self) -> list[str]:
        """Modalities that have a usual course: windows have to begin where it begins."""
        means = [next(encoder.children()).get_buffer("mean").flatten(1) for encoder in self]
        varied = [(mean != mean[:, :1]).any() for mean in means]
        return [name for name, yes in zip(self.names, varied, strict=True) if yes]

    def forward(
        self, x: Mapping[str, Tensor], present: Tensor, everyone: Tensor | None = None
    ) -> Tensor:
        """H [B, M, d]; zeros where absent.

        Args:
            x: per modality [B, *window_shape], raw units.
            present: [B, M] bool. Only present rows reach an encoder, so its batch norms see no
                fill values.
            everyone: presence in the whole batch, where other processes encode the rest of it.
        """
        h = []
        seen = (present if everyone is None else everyone).sum(0).tolist()
        for i, name in enumerate(self.names):
            rows = present[:, i].nonzero().squeeze(1)
            empty = torch.zeros(len(present), self.width, device=present.device)
            # A lone row has no spread to normalise by.
            if seen[i] < (2 if self.training else 1):
                h.append(empty)
            elif len(rows) == len(present):
                h.append(self[i](x[name]).float())
            else:
                h.append(empty.index_copy(0, rows, self[i](x[name][rows]).float()))
        return torch.stack(h, 1)


class Fusion(nn.Module):
    """f_0: the latents of any alive subset → H_0.

    An absent modality's place holds a learned token, so its latent cannot be seen, not even a NaN.
    Beside the latents, the layers see the sum of products over all alive pairs,
    Σ_{i<j} t_i t_j = ((Σ t_i)² − Σ t_i²) / 2 with t_i = tanh(A_i h_i): what lies *between* two
    sensors (XOR at the purest) is learned from that, and hardly from the latents side by side.
    """

    def __init__(self, m: int, d: int, dropout: float) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(m, d))
        self.a = nn.Parameter(torch.randn(m, d, d) / d**0.5)
        self.layers = nn.Sequential(
            nn.Linear((m + 1) * d, 2 * d),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * d, d),
        )

    def forward(self, h: Tensor, alive: Tensor) -> Tensor:
        """h [B, M, d], alive [B, M] bool → [B, d]."""
        there = alive[:, :, None]
        h = torch.where(there, h, self.token)
        t = torch.where(there, torch.tanh(torch.einsum("bmd,mde->bme", h, self.a)), 0.0)
        pairs = (t.sum(1).square() - t.square().sum(1)) / (2 * max(1, h.shape[1] - 1))
        return self.layers(torch.cat([h.flatten(1), pairs], 1))


@dataclass(frozen=True)
class Latents:
    """Everything a training step looks at. B samples, M modalities, width d, K classes.

    Rows of absent modalities hold no meaning.

    Attributes:
        h, z: H_i and Z_i, each [B, M, d].
        s: S over all present modalities [B, d].
        logits: ŷ_i [B, M, K].
        logits_0: ŷ_0 over all present modalities [B, K].
    """

    h: Tensor
    z: Tensor
    s: Tensor
    logits: Tensor
    logits_0: Tensor


class Robult(nn.Module):
    """M modality encoders, one any-subset fusion encoder, one shared extractor and classifier.

    Args:
        modalities: with statistics.
        classes: K.
        width: d.
        encoders: encoder name per modality; the default by shape where not given.
        classifier_input: "z": c sees the shared information; "zu": the unique one as well.
        dropout: inside g_0 and f_0, while training.
    """

    def __init__(
        self,
        modalities: tuple[ModalitySpec, ...],
        classes: int,
        width: int = 64,
        encoders: Mapping[str, str] | None = None,
        classifier_input: ClassifierInput = "z",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.names = tuple(m.name for m in modalities)
        self.width = width
        self.classifier_input = classifier_input
        d, m = width, len(modalities)
        self.f = Encoders(modalities, width, encoders or {})
        self.f_0 = Fusion(m, d, dropout)
        self.g_0 = mlp(d, d, dropout)
        # With "zu" the fusion latent needs unique information as well: the last of the list.
        self.g = nn.ModuleList(mlp(d, d, dropout) for _ in range(m + (classifier_input == "zu")))
        self.r = nn.ModuleList(mlp(2 * d, d, dropout) for _ in range(m))
        self.c = nn.Linear(d if classifier_input == "z" else 2 * d, classes)

    def branch(self, name: str) -> Branch:
        """X_i → (logits, h), as exported; shares this network's weights."""
        i = self.names.index(name)
        unique = self.g[i] if self.classifier_input == "zu" else None
        return Branch(self.f[i], self.g_0, unique, self.c)

    def head(self) -> Head:
        """(h, alive) → logits, as exported; shares this network's weights."""
        unique = self.g[-1] if self.classifier_input == "zu" else None
        return Head(self.f_0, self.g_0, unique, self.c)

    def fuse(self, h: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """S_A [B, d] and ŷ_A [B, K] of h [B, M, d] and alive [B, M]."""
        h_0 = self.f_0(h, alive)
        s = self.g_0(h_0)
        unique = self.g[-1](h_0) if self.classifier_input == "zu" else None
        return s, classify(self.c, s, unique)

    def unique(self, h: Tensor) -> Tensor:
        """U_i = g_i(H_i): h [B, M, d] → [B, M, d]."""
        return torch.stack([self.g[i](h[:, i]) for i in range(len(self.names))], 1)

    def reconstruct(self, h: Tensor, z: Tensor) -> Tensor:
        """Ĥ_i = r_i(U_i, Z_i) [B, M, d]; trains g_i and r_i only, H and Z are given."""
        both = torch.cat([self.unique(h.detach()), z.detach()], -1)
        return torch.stack([r(both[:, i]) for i, r in enumerate(self.r)], 1)

    def forward(self, x: Mapping[str, Tensor], present: Tensor) -> Latents:
        """Latents and answers of a batch; arguments as `Encoders` takes them."""
        return self.latents(self.f(x, present), present)

    def latents(self, h: Tensor, present: Tensor) -> Latents:
        """As ``forward``, of windows encoded already: h [B, M, d]."""
        z = self.g_0(h)
        s, logits_0 = self.fuse(h, present)
        logits = classify(self.c, z, self.unique(h) if self.classifier_input == "zu" else None)
        return Latents(h=h, z=z, s=s, logits=logits, logits_0=logits_0)


class Branch(nn.Module):
    """One modality alone: f_i, g_0 (and g_i), c."""

    def __init__(self, f: nn.Module, g_0: nn.Module, g: nn.Module | None, c: nn.Module) -> None:
        super().__init__()
        self.f, self.g_0, self.g, self.c = f, g_0, g, c

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, *window_shape], raw units → logits [B, K], h [B, d]."""
        h = self.f(x)
        return classify(self.c, self.g_0(h), None if self.g is None else self.g(h)), h


class Head(nn.Module):
    """Any alive subset: f_0, g_0 (and its g), c."""

    def __init__(self, f_0: nn.Module, g_0: nn.Module, g: nn.Module | None, c: nn.Module) -> None:
        super().__init__()
        self.f_0, self.g_0, self.g, self.c = f_0, g_0, g, c

    def forward(self, h: Tensor, alive: Tensor) -> Tensor:
        """h [B, M, d] float32, alive [B, M] bool → logits [B, K]."""
        h_0 = self.f_0(h, alive)
        return classify(self.c, self.g_0(h_0), None if self.g is None else self.g(h_0))


def classify(c: nn.Module, shared: Tensor, unique: Tensor | None) -> Tensor:
    """ŷ = c(Z) or c(Z, U): [..., d] → [..., K]."""
    return c(shared if unique is None else torch.cat([shared, unique], -1))


def encoder_names(
    modalities: tuple[ModalitySpec, ...], overrides: Mapping[str, str]
) -> dict[str, str]:
    """Encoder of each modality: the override, else the default for its shape.

    Raises:
        SpecError: an override names no modality.
    """
    names = [m.name for m in modalities]
    for name in overrides:
        if name not in names:
            raise SpecError(f"encoder given for {name!r}; the modalities are {', '.join(names)}")
    return {m.name: overrides.get(m.name) or enc.default_encoder(m) for m in modalities}


def mlp(inputs: int, d: int, dropout: float) -> nn.Sequential:
    """The shape of g_0, g_i and r_i: [..., inputs] → [..., d]."""
    return nn.Sequential(nn.Linear(inputs, d), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d, d))
