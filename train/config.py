"""Every setting of a training run, with the default that won out of fold."""

from __future__ import annotations

from dataclasses import dataclass, field

from robult_edge.nn.robult import ClassifierInput


@dataclass(frozen=True)
class TrainConfig:
    """Plain settings.

    Attributes:
        labels: fraction of the training labels that may be used, for anything.
        missing: share of the training groups' modality samples taken away.
        seed: of everything random.
        folds: K of the cross-fit.
        epochs: most epochs; the number used is chosen out of fold.
        steps: gradient steps in an epoch, at most; see ``train.plan.steps``.
        batch_labelled, batch_unlabelled: rows of the two streams in a batch.
        lr: after ``warmup`` steps, constant: so that a model stopped early is a finished one.
        weight_decay: of AdamW.
        dropout: in g_0 and f_0.
        ema: decay of the averaged weights that are evaluated and kept.
        width: d.
        encoders: encoder per modality, where not the default.
        classifier_input: "z" or "zu"; "zu" was better out of fold on watch and on hydraulic.
        alpha, beta: weights of L_PU and L_rec.
        tau: τ of the contrastive loss.
        lambda_l: λ_l, weight of L_lb inside L_PU.
        lambda_u: λ_u after its ramp.
        delta: weight of L_distil: what `train.teacher` says of unlabelled windows, to be said of
            them, augmented, by every branch and the head. With 0 it is not asked, and labels are
            taken at their word.
        ramp: share of the epochs over which λ_u rises, and the classifier counts as young.
        kernel: K of the pseudo positives.
        augment: apply the augmentations that the modalities declare.
        device: "auto", "cpu" or "cuda".
        workers: processes that train folds side by side; 0: see `train.crossfit.side_by_side`.
    """

    labels: float = 1.0
    missing: float = 0.0
    seed: int = 0
    folds: int = 5
    epochs: int = 30
    steps: int = 40
    batch_labelled: int = 64
    batch_unlabelled: int = 64
    lr: float = 2e-3
    warmup: int = 40
    weight_decay: float = 0.01
    dropout: float = 0.1
    ema: float = 0.99
    width: int = 64
    encoders: dict[str, str] = field(default_factory=dict)
    classifier_input: ClassifierInput = "zu"
    alpha: float = 0.3
    beta: float = 0.1
    tau: float = 0.2
    lambda_l: float = 1.0
    lambda_u: float = 0.5
    delta: float = 3.0
    ramp: float = 0.3
    kernel: str = "rbf"
    augment: bool = True
    device: str = "auto"
    workers: int = 0
