"""The losses of Robult (arXiv 2509.03477), one equation one function, with the paper's symbols.

a, b run over the batch. Presence: S_a exists where any modality of a is present, Z_{i,b} where
modality i of b is. An absent Z_{i,b} is no candidate b' and no positive of anyone.

Tasks differ in what makes two truths alike, in the loss of one answer, and in how averaged answers
become a pseudo-label: see ALIKE, COSTS and `pseudo_labels`. Where truths are more or less alike,
positives weigh as much as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

from robult_edge.task import Task

Alike = Callable[[Tensor], Tensor]
"""Truths of a batch → [B, B]: bool, or a weight in [0, 1]."""
TOLERANCE = 0.5
"""Values further apart than this, in spreads of the training labels, are not alike at all."""

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


def same_class(y: Tensor) -> Tensor:
    """y_a = y_b: classes [B] → [B, B] bool."""
    return y[:, None] == y


def jaccard(y: Tensor) -> Tensor:
    """|y_a ∩ y_b| / |y_a ∪ y_b|, 1 where both are empty: label sets [B, K] → [B, B]."""
    y = y.float()
    both = y @ y.T
    either = y.sum(1)[:, None] + y.sum(1) - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def near(y: Tensor) -> Tensor:
    """(1 − ‖y_a − y_b‖² / K·TOLERANCE²)₊: standardised values [B, K] → [B, B]."""
    apart = (y[:, None] - y).square().mean(2)
    return (1 - apart / TOLERANCE**2).clamp(min=0)


ALIKE: dict[Task, Alike] = {
    "classification": same_class,
    "multilabel": jaccard,
    "regression": near,
}


def true_positives(y: Tensor, labelled: Tensor, alike: Alike = same_class) -> Tensor:
    """P(a) = {a} ∪ {b : ℓ_a ℓ_b = 1, y_a = y_b}: y [B, …], labelled [B] bool → [B, B]."""
    return (alike(y) * (labelled[:, None] & labelled)).fill_diagonal_(1)


def pseudo_positives(y_tilde: Tensor, labelled: Tensor, alike: Alike = same_class) -> Tensor:
    """Q(a) = {b ≠ a : not both labelled, ỹ_a = ỹ_b}: [B, …], [B] bool → [B, B]."""
    return (alike(y_tilde) * ~(labelled[:, None] & labelled)).fill_diagonal_(0)


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
        positives: P(a), present b only, [B, B] bool; or how much of a positive each b is.
    """
    return l_ulb(log_p_ab, positives.to(log_p_ab.dtype))


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
    alike: Alike = same_class,
    momentum: float = 0.9,
) -> PuLoss:
    """L_PU = mean_i (λ_l L_lb + λ_u L_ulb), the soft PU contrastive loss; λ_l = 1 in the paper.

    Args:
        s: S [B, d] over each sample's present modalities.
        z: Z_i [B, M, d].
        present: [B, M] bool.
        y_tilde: [B] or [B, K] ỹ: y where labelled, else the pseudo-label.
        labelled: [B] bool.
        reference: [M, 3] as of ``update_reference``.
        tau: τ.
        lambda_l: λ_l.
        lambda_u: λ_u(t).
        kernel: K.
        young: pseudo positives below the 25th percentile are not yet believed.
        alike: which ỹ are the same, or how much so.
        momentum: of the reference.
    """
    p = true_positives(y_tilde, labelled, alike)
    q = pseudo_positives(y_tilde, labelled, alike)
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
        references.append(update_reference(reference[i], still[p * couplets > 0.5], momentum))
        w = pseudo_weights(still, references[i].nan_to_num(0.0), kernel, young) * (q * couplets)
        lb.append(l_lb(log_p_ab, p * couplets))
        ulb.append(l_ulb(log_p_ab, w))
        bound.append(log(int(here.sum())) - lb[-1].detach())
        share.append(w.sum() / (q * couplets).sum().clamp(min=1))
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


def cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Of classes: logits [n, K], y [n] → [n]."""
    return F.cross_entropy(z, y, reduction="none")


def binary_cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Of labels, averaged: logits [n, K], y [n, K] → [n]."""
    return F.binary_cross_entropy_with_logits(z, y.to(z.dtype), reduction="none").mean(1)


def squared_error(z: Tensor, y: Tensor) -> Tensor:
    """Of standardised values, averaged, as late fusion judges them: [n, K] twice → [n]."""
    return (z - y).square().mean(1)


COSTS: dict[Task, Callable[[Tensor, Tensor], Tensor]] = {
    "classification": cross_entropy,
    "multilabel": binary_cross_entropy,
    "regression": squared_error,
}


def l_sup(logits: Tensor, y: Tensor, known: Tensor, task: Task = "classification") -> Tensor:
    """L_sup: the task's cost over the answers whose truth is known, 0 if none is.

    Args:
        logits: [B, K].
        y: [B] or [B, K].
        known: [B] bool: labelled, and the answer exists.
        task: what is asked.
    """
    if not known.any():
        return logits.new_zeros(())
    return COSTS[task](logits[known], y[known]).mean()


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


def _same(values: Tensor) -> Tensor:
    return values


LINKS: dict[Task, Callable[[Tensor], Tensor]] = {
    "classification": _softmax,
    "multilabel": torch.sigmoid,
    "regression": _same,
}
"""What the network answers, as probabilities or values."""


def pseudo_labels(logits: Tensor, there: Tensor, task: Task) -> Tensor:
    """ỹ of unlabelled windows, [B] or [B, K]: the average of the answers, made a truth of the task.

    Args:
        logits: [B, A, K] of A answers.
        there: [B, A] bool, which of them exist.
        task: what is asked.
    """
    answers = LINKS[task](logits) * there[:, :, None]
    mean = answers.sum(1) / there.sum(1, keepdim=True).clamp(min=1)
    if task == "classification":
        return mean.argmax(1)
    return (mean >= 0.5).long() if task == "multilabel" else mean


def pseudo_hits(guess: Tensor, y: Tensor, task: Task) -> Tensor:
    """How right pseudo-labels are, [B] in 0 – 1: of labels and values, the share that is."""
    if task == "regression":
        return ((guess - y).abs() <= TOLERANCE).float().mean(1)
    return (guess == y).float().reshape(len(y), -1).mean(1)
