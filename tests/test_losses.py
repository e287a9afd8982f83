"""The losses against loops over pairs, written from the equations."""

from math import exp, log

import numpy as np
import pytest
import torch

from robult_edge.nn import losses

B, M, D, TAU = 12, 3, 8, 0.3


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    s = torch.randn(B, D, generator=generator)
    z = torch.randn(B, M, D, generator=generator) + 0.5 * s[:, None]
    y = torch.randint(3, (B,), generator=generator)
    labelled = torch.rand(B, generator=generator) < 0.5
    present = torch.rand(B, M, generator=generator) < 0.7
    present[0] = True
    present[1] = False  # nothing of sample 1 is there at all
    return s, z, y, labelled, present


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def by_hand(s, z, y, labelled, present, reference, young):
    """L_lb and L_ulb, averaged over modalities, pair by pair."""
    lbs, ulbs = [], []
    for i in range(M):
        there = [b for b in range(B) if present[b, i]]
        lb, ulb = [], []
        for a in range(B):
            if not present[a].any():
                continue
            prox = {b: cosine(s[a], z[b, i]) for b in there}
            norm = log(sum(exp(p / TAU) for p in prox.values()))
            log_p = {b: p / TAU - norm for b, p in prox.items()}
            positive = [
                b for b in there if b == a or (labelled[a] and labelled[b] and y[a] == y[b])
            ]
            if positive:
                lb.append(-np.mean([log_p[b] for b in positive]))
            mu, sigma, q = (float(v) for v in reference[i])
            weights = {
                b: exp(-(max(mu - prox[b], 0) ** 2) / (2 * sigma**2))
                for b in there
                if b != a
                and not (labelled[a] and labelled[b])
                and y[a] == y[b]
                and (prox[b] >= q or not young)
            }
            if sum(weights.values()) > 1e-6:
                ulb.append(-sum(w * log_p[b] for b, w in weights.items()) / sum(weights.values()))
        lbs.append(np.mean(lb))
        ulbs.append(np.mean(ulb) if ulb else 0.0)
    return np.mean(lbs), np.mean(ulbs)


def pu(s, z, y, labelled, present, reference, young=False, lambda_u=0.7):
    return losses.l_pu(
        s, z, present, y, labelled, reference,
        tau=TAU, lambda_l=1.0, lambda_u=lambda_u, kernel=losses.rbf, young=young, momentum=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("young", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_l_pu_equals_loops_over_pairs(seed, young):
    s, z, y, labelled, present = batch(seed)
    reference = torch.tensor([[0.4, 0.3, 0.1], [0.5, 0.2, 0.0], [0.2, 0.4, -0.2]])
    got = pu(s, z, y, labelled, present, reference, young)
    lb, ulb = by_hand(s, z, y, labelled, present, reference, young)
    assert float(got.lb) == pytest.approx(lb, rel=1e-5)
    assert float(got.ulb) == pytest.approx(ulb, rel=1e-5)
    assert float(got.loss) == pytest.approx(lb + 0.7 * ulb, rel=1e-5)


def test_positives_are_as_the_paper_says():
    y = torch.tensor([0, 0, 1, 0])
    labelled = torch.tensor([True, True, True, False])
    true = losses.true_positives(y, labelled)
    pseudo = losses.pseudo_positives(y, labelled)
    assert true.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert pseudo.int().tolist() == [[0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]


def test_an_absent_latent_changes_no_loss_and_gets_no_gradient():
    s, z, y, labelled, present = batch()
    reference = torch.full((M, 3), torch.nan)
    z2 = z.clone()
    z2[~present] = 1e3
    z2.requires_grad_()
    got, other = (pu(s, v, y, labelled, present, reference) for v in (z, z2))
    assert torch.equal(got.loss, other.loss)
    torch.testing.assert_close(got.reference, other.reference)
    other.loss.backward()
    assert z2.grad is not None
    assert (z2.grad[~present] == 0).all()
    assert (z2.grad[present] != 0).any()


def test_a_modality_absent_everywhere_leaves_the_others_losses_as_they_are():
    s, z, y, labelled, present = batch()
    reference = torch.full((M, 3), torch.nan)
    present[:, 2] = False
    present[:, 0] |= ~present.any(1)
    got = pu(s, z, y, labelled, present, reference)
    two = pu(s, z[:, :2], y, labelled, present[:, :2], reference[:2])
    assert float(got.loss) == pytest.approx(float(two.loss), rel=1e-6)
    assert got.reference[2].isnan().all()


def test_perfect_couplets_reach_the_mutual_information_bound():
    s = torch.eye(B, D + B)
    z = s[:, None].repeat(1, M, 1)
    got = losses.l_pu(
        s, z, torch.ones(B, M, dtype=torch.bool), torch.arange(B), torch.zeros(B, dtype=torch.bool),
        torch.full((M, 3), torch.nan), tau=0.01, lambda_l=1.0, lambda_u=0.0,
        kernel=losses.rbf, young=True,
    )  # fmt: skip
    assert float(got.mi_bound) == pytest.approx(log(B), abs=1e-4)


@pytest.mark.parametrize("kernel", losses.KERNELS.values())
def test_kernels_are_one_at_the_mean_and_never_rise_below_it(kernel):
    mu, sigma = torch.tensor(0.6), torch.tensor(0.1)
    w = kernel(torch.linspace(0.9, -1, 50), mu, sigma)
    assert w[0] == 1
    assert (w.diff() <= 0).all()
    assert ((w >= 0) & (w <= 1)).all()


def test_reference_follows_true_couplets():
    reference = torch.full((3,), torch.nan)
    reference = losses.update_reference(reference, torch.tensor([0.2, 0.4, 0.6]), 0.9)
    assert reference.tolist() == pytest.approx([0.4, 0.2, 0.3])
    assert losses.update_reference(reference, torch.tensor([]), 0.9) is reference
    moved = losses.update_reference(reference, torch.tensor([0.9, 0.9]), 0.5)
    assert moved[0] == pytest.approx(0.65)


def test_l_rec_cannot_be_pleased_by_shrinking_h():
    h = torch.randn(16, M, D, requires_grad=True)
    h_hat = torch.randn(16, M, D, requires_grad=True)
    present = torch.ones(16, M, dtype=torch.bool)
    loss = losses.l_rec(h, h_hat, present)
    loss.backward()
    assert h.grad is None
    assert h_hat.grad is not None
    small = losses.l_rec(0.1 * h, 0.1 * h_hat, present)
    torch.testing.assert_close(small, loss, rtol=1e-4, atol=0.0)


def test_l_sup_without_labels_is_zero():
    logits = torch.randn(4, 3, requires_grad=True)
    y = torch.tensor([0, 1, -1, 2])
    assert losses.l_sup(logits, y, torch.zeros(4, dtype=torch.bool)) == 0
    known = torch.tensor([True, True, False, False])
    expected = -logits.log_softmax(1)[[0, 1], [0, 1]].mean()
    torch.testing.assert_close(losses.l_sup(logits, y, known), expected)


def test_label_sets_are_alike_by_what_they_share():
    y = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
    want = [[1, 1 / 2, 0, 0], [1 / 2, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    torch.testing.assert_close(losses.jaccard(y), torch.tensor(want))


def test_values_are_alike_within_the_tolerance():
    y = torch.tensor([[0.0], [0.25], [0.5], [3.0]])
    want = [[1, 0.75, 0, 0], [0.75, 1, 0.75, 0], [0, 0.75, 1, 0], [0, 0, 0, 1]]
    torch.testing.assert_close(losses.near(y), torch.tensor(want))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
@pytest.mark.parametrize("young", [False, True])
def test_positives_that_are_more_or_less_alike_weigh_as_much(task, young):
    """The same loops over pairs, with likeness as weight."""
    s, z, _, labelled, present = batch(3)
    generator = torch.Generator().manual_seed(4)
    y = torch.randn(B, 2, generator=generator) * 0.5
    y = (y > 0).long() if task == "multilabel" else y
    alike = losses.ALIKE[task]
    a_ab = alike(y)
    reference = torch.tensor([[0.4, 0.3, 0.1]]).repeat(M, 1)
    got = losses.l_pu(
        s, z, present, y, labelled, reference, tau=TAU, lambda_l=1.0, lambda_u=0.7,
        kernel=losses.rbf, young=young, alike=alike, momentum=1.0,
    )  # fmt: skip
    lbs, ulbs = [], []
    for i in range(M):
        there = [b for b in range(B) if present[b, i]]
        lb, ulb = [], []
        for a in range(B):
            if not present[a].any():
                continue
            prox = {b: cosine(s[a], z[b, i]) for b in there}
            norm = log(sum(exp(p / TAU) for p in prox.values()))
            true, pseudo = {}, {}
            for b in there:
                both, same = bool(labelled[a] and labelled[b]), float(a_ab[a, b])
                true[b] = 1.0 if a == b else same * both
                believed = exp(-(max(0.4 - prox[b], 0) ** 2) / (2 * 0.3**2))
                pseudo[b] = believed * same * (a != b and not both)
                if young and prox[b] < 0.1:
                    pseudo[b] = 0.0
            for w, out in ((true, lb), (pseudo, ulb)):
                if sum(w.values()) > 1e-6:
                    total = sum(v * (prox[b] / TAU - norm) for b, v in w.items())
                    out.append(-total / sum(w.values()))
        lbs.append(np.mean(lb))
        ulbs.append(np.mean(ulb) if ulb else 0.0)
    assert float(got.lb) == pytest.approx(np.mean(lbs), rel=1e-5)
    assert float(got.ulb) == pytest.approx(np.mean(ulbs), rel=1e-5)


def test_costs_are_the_textbooks():
    z, labels = torch.tensor([[2.0, -1.0]]), torch.tensor([[1, 0]])
    want = (log(1 + exp(-2)) + log(1 + exp(-1))) / 2
    assert float(losses.binary_cross_entropy(z, labels)) == pytest.approx(want)
    assert float(losses.squared_error(z, torch.tensor([[1.5, 2.0]]))) == pytest.approx(4.625)
    known = torch.tensor([False])
    for task in losses.COSTS:
        assert losses.l_sup(z, labels, known, task) == 0


def test_pseudo_labels_are_what_the_answers_that_exist_say_on_average():
    logits = torch.tensor([[[3.0, -3.0], [-1.0, 2.0], [9.0, 9.0]]])
    there = torch.tensor([[True, True, False]])
    p = logits[0, :2].softmax(1).mean(0)
    assert losses.pseudo_labels(logits, there, "classification").tolist() == [int(p.argmax())]
    labels = (logits[0, :2].sigmoid().mean(0) >= 0.5).long()
    assert losses.pseudo_labels(logits, there, "multilabel").tolist() == [labels.tolist()]
    torch.testing.assert_close(
        losses.pseudo_labels(logits, there, "regression"), torch.tensor([[1.0, -0.5]])
    )


def test_pseudo_labels_are_right_as_far_as_they_are():
    guess, y = torch.tensor([[1, 0], [1, 1]]), torch.tensor([[1, 1], [1, 1]])
    assert losses.pseudo_hits(guess, y, "multilabel").tolist() == [0.5, 1.0]
    values, truth = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.4, torch.nan]])
    assert losses.pseudo_hits(values, truth, "regression").tolist() == [0.5]
    assert losses.pseudo_hits(guess[:, 0], y[:, 0], "classification").tolist() == [1, 1]
