"""The losses of Robult (arXiv 2509.03477), one equation one function, with the paper's symbols.

a, b run over the batch. Presence: S_a exists where any modality of a is present, Z_{i,b} where
modality i of b is. An absent Z_{i,b} is no candidate b' and no positive of anyone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""K(s, μ, σ) → weight in [0, 1]: how far a proximity s falls short of true couplets'."""


def proximity(s: Tensor, z: Tensor) -> Tensor:
    """s_ab = cos(S_a, Z_{i,b}): s [B, d], z [B, d] → [B, B]."""
    return F.normalize(s, dim=1) @ F.normalize(z, dim=1).T


def log_p(s_ab: Tensor, tau: float, present: Tensor) -> Tensor:
    """log p_ab = s_ab/τ − log Σ_b' exp(s_ab'/τ) over present b'.

    Args:
        s_ab: proximities [B, B].
        tau: temperature τ.
        present: [B] bool, where Z_{i,b} exists.

    Returns:
        [B, B]; columns of absent b are 0, never to be read.
    """
    kept = (s_ab / tau).masked_fill(~present, -torch.inf)
    return kept.log_softmax(1).masked_fill(~present, 0.0)


def true_positives(y: Tensor, labelled: Tensor) -> Tensor:
    """P(a) = {a} ∪ {b : ℓ_a ℓ_b = 1, y_a = y_b}: y [B], labelled [B] bool → [B, B] bool."""
    same = (y[:, None] == y) & labelled[:, None] & labelled
    return same | torch.eye(len(y), dtype=torch.bool, device=y.device)


def pseudo_positives(y_tilde: Tensor, labelled: Tensor) -> Tensor:
    """Q(a) = {b ≠ a : not both labelled, ỹ_a = ỹ_b}: [B], [B] bool → [B, B] bool."""
    same = (y_tilde[:, None] == y_tilde) & ~(labelled[:, None] & labelled)
    return same & ~torch.eye(len(labelled), dtype=torch.bool, device=labelled.device)


def rbf(s: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """exp(−(μ − s)₊² / 2σ²), the paper's."""
    return torch.exp(-(mu - s).clamp(min=0).square() / (2 * sigma.square()))


def l1(s: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """(1 − (μ − s)₊ / 3σ)₊."""
    return (1 - (mu - s).clamp(min=0) / (3 * sigma)).clamp(min=0)


def l2(s: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """(1 − ((μ − s)₊ / 3σ)²)₊."""
    return (1 - ((mu - s).clamp(min=0) / (3 * sigma)).square()).clamp(min=0)


def uniform(s: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """1: every pseudo positive is believed."""
    return torch.ones_like(s)


KERNELS: dict[str, Kernel] = {"rbf": rbf, "l1": l1, "l2": l2, "uniform": uniform}


def update_reference(reference: Tensor, s_true: Tensor, momentum: float) -> Tensor:
    """Running proximities of true couplets.

    Args:
        reference: [3] μ, σ and 25th percentile q; NaN before the first batch.
        s_true: [n] proximities of this batch's true couplets.
        momentum: share of the old reference that stays.

    Returns:
        [3].
    """
    if len(s_true) < 2:
        return reference
    now = torch.stack([s_true.mean(), s_true.std().clamp(min=0.02), s_true.quantile(0.25)])
    return torch.where(reference.isnan(), now, momentum * reference + (1 - momentum) * now)


def pseudo_weights(s_ab: Tensor, reference: Tensor, kernel: Kernel, young: bool) -> Tensor:
    """w_ab = K(s_ab) ∈ [0, 1], zero below the reference's 25th percentile while young: [B, B]."""
    mu, sigma, q = reference
    w = kernel(s_ab, mu, sigma)
    return torch.where(s_ab >= q, w, 0.0) if young else w


def l_lb(log_p_ab: Tensor, positives: Tensor) -> Tensor:
    """L_lb = −E_a mean_{b∈P(a)} log p_ab, over the a that have a present positive.

    Args:
        log_p_ab: [B, B].
        positives: P(a), present b only, [B, B] bool.
    """
    n = positives.sum(1)
    per_a = -(log_p_ab * positives).sum(1) / n.clamp(min=1)
    return per_a.sum() / (n > 0).sum().clamp(min=1)


def l_ulb(log_p_ab: Tensor, w: Tensor) -> Tensor:
    """L_ulb = −E_a Σ_{b∈Q(a)} w_ab log p_ab / Σ w_ab, over the a whose weights are not all 0.

    Args:
        log_p_ab: [B, B].
        w: weights, 0 outside Q(a) and at absent b, [B, B].
    """
    mass = w.sum(1)
    per_a = -(log_p_ab * w).sum(1) / mass.clamp(min=1e-6)
    return per_a[mass > 1e-6].sum() / (mass > 1e-6).sum().clamp(min=1)


@dataclass(frozen=True)
class PuLoss:
    """L_PU and what to log of it.

    Attributes:
        loss: L_PU = mean_i (λ_l L_lb + λ_u L_ulb).
        lb, ulb: the two, averaged over modalities.
        mi_bound: log B − L_lb, nats: I(S; Z_i) is at least that; averaged over modalities.
        w_share: share of the pseudo positives' full weight that w gives them.
        reference: [M, 3] updated.
    """

    loss: Tensor
    lb: Tensor
    ulb: Tensor
    mi_bound: Tensor
    w_share: Tensor
    reference: Tensor


def l_pu(
    s: Tensor,
    z: Tensor,
    present: Tensor,
    y_tilde: Tensor,
    labelled: Tensor,
    reference: Tensor,
    *,
    tau: float,
    lambda_l: float,
    lambda_u: float,
    kernel: Kernel,
    young: bool,
    momentum: float = 0.9,
) -> PuLoss:
    """L_PU = mean_i (λ_l L_lb + λ_u L_ulb), the soft PU contrastive loss; λ_l = 1 in the paper.

    Args:
        s: S [B, d] over each sample's present modalities.
        z: Z_i [B, M, d].
        present: [B, M] bool.
        y_tilde: [B] ỹ: y where labelled, else the pseudo-label.
        labelled: [B] bool.
        reference: [M, 3] as of ``update_reference``.
        tau: τ.
        lambda_l: λ_l.
        lambda_u: λ_u(t).
        kernel: K.
        young: pseudo positives below the 25th percentile are not yet believed.
        momentum: of the reference.
    """
    p, q = true_positives(y_tilde, labelled), pseudo_positives(y_tilde, labelled)
    exists = present.any(1)[:, None]
    lb, ulb, bound, share, references = [], [], [], [], []
    for i in range(z.shape[1]):
        here = present[:, i]
        if not here.any():
            references.append(reference[i])
            continue
        couplets = exists & here
        s_ab = proximity(s, z[:, i])
        log_p_ab = log_p(s_ab, tau, here)
        still = s_ab.detach()
        references.append(update_reference(reference[i], still[p & couplets], momentum))
        w = pseudo_weights(still, references[i].nan_to_num(0.0), kernel, young) * (q & couplets)
        lb.append(l_lb(log_p_ab, p & couplets))
        ulb.append(l_ulb(log_p_ab, w))
        bound.append(log(int(here.sum())) - lb[-1].detach())
        share.append(w.sum() / (q & couplets).sum().clamp(min=1))
    mean_lb, mean_ulb = torch.stack(lb).mean(), torch.stack(ulb).mean()
    return PuLoss(
        loss=lambda_l * mean_lb + lambda_u * mean_ulb,
        lb=mean_lb.detach(),
        ulb=mean_ulb.detach(),
        mi_bound=torch.stack(bound).mean(),
        w_share=torch.stack(share).mean(),
        reference=torch.stack(references),
    )


def l_rec(h: Tensor, h_hat: Tensor, present: Tensor) -> Tensor:
    """L_rec = mean_i ‖H_i − r_i(U_i, Z_i)‖², over what is present, per unit of H's variance.

    The target is detached and measured in its own spread: H cannot shrink to please the loss.

    Args:
        h: H_i [B, M, d].
        h_hat: Ĥ_i [B, M, d].
        present: [B, M] bool.
    """
    target = h.detach()[present]
    scale = target.var(0, correction=0).mean().clamp(min=1e-6)
    return (h_hat[present] - target).square().mean() / scale


def l_sup(logits: Tensor, y: Tensor, known: Tensor) -> Tensor:
    """L_sup: cross entropy over the answers whose truth is known, 0 if none is.

    Args:
        logits: [B, K].
        y: [B].
        known: [B] bool: labelled, and the answer exists.
    """
    if not known.any():
        return logits.new_zeros(())
    return F.cross_entropy(logits[known], y[known])
