"""Training one model: two streams of windows in, a snapshot of averaged weights per epoch out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from robult_edge import fusion, subsets
from robult_edge.errors import RobultError
from robult_edge.nn import losses
from robult_edge.nn.checkpoint import load_state, save_state, save_tensors
from robult_edge.nn.robult import Robult
from robult_edge.task import Task, as_answers
from train import distributed
from train.augment import Noise
from train.config import TrainConfig
from train.feed import feed
from train.plan import Plan, augmented, batches, fit_encoders, random_subset, steps


@dataclass(frozen=True)
class Progress:
    """One epoch of one model, for people to look at."""

    fold: int
    epoch: int
    loss: float
    pseudo_accuracy: float


def build(plan: Plan, config: TrainConfig) -> Robult:
    """An untrained network."""
    model = Robult(
        plan.modalities,
        plan.classes,
        config.width,
        encoders=config.encoders,
        classifier_input=config.classifier_input,
        dropout=config.dropout,
    )
    fit_encoders(model.f, plan, config)
    return model


def train_fold(
    plan: Plan,
    config: TrainConfig,
    fold: int,
    out: Path,
    report: Callable[[Progress], None],
    taught: np.ndarray | None = None,
) -> None:
    """Train on every fold but ``fold``; ``plan.everything``, no fold, leaves out nothing.

    ``taught`` [N, K] is what `train.teacher` says of every window: to be said of it, and of a
    labelled one the less the longer training lasts. At first it counts alone, in the end its label.
    Labels may be noise, or tell what no ridge can see: how far they are to be believed, the choice
    of the epoch says.

    Leaves ``out/fold<k>/epoch-<e>.safetensors`` per epoch: averaged weights, with `oof_error` as
    metadata. Goes on from ``state.safetensors`` where there is one. All randomness of an epoch is a
    function of (seed, fold, epoch), so an interrupted run ends as any other. Under torchrun all
    processes train this fold together; ``out`` is one folder to all of them.
    """
    from torch.utils.tensorboard import SummaryWriter

    out = out / f"fold{fold}"
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(pick_device(config.device))
    torch.manual_seed(derived_seed(config.seed, fold, 0))
    model = distributed.synchronised(build(plan, config))
    averaged = copy.deepcopy(model).eval().to(device)  # copied there, a GRU's weights lie apart
    model.to(device)
    ema = dict(averaged.state_dict())
    optimiser = optimiser_of(model, config)
    reference = torch.full((len(plan.modalities), 3), torch.nan, device=device)

    present = torch.from_numpy(plan.present).to(device)
    y = torch.from_numpy(plan.y).to(device)
    said_of = None if taught is None else torch.from_numpy(taught).to(device)
    label = torch.from_numpy(as_answers(plan.y, plan.classes, plan.task)).float().to(device)
    mine = plan.fold != fold
    held_out, share = np.flatnonzero(~mine & plan.judged), distributed.share()
    # Training draws its strata (classes) evenly, so each counts evenly here.
    fair = (1 / np.bincount(plan.strata[plan.known]).clip(1))[plan.strata[held_out]]
    per_epoch = steps(config, mine)

    begin = 0
    if distributed.agreed((out / "state.safetensors").exists):
        begin, reference = load_state(out / "state.safetensors", model, ema, optimiser)
        reference = reference.to(device)
    logs = out.parent.parent / "logs" / out.name
    log = SummaryWriter(str(logs), purge_step=begin) if distributed.leads() else None
    for epoch in range(begin, config.epochs):
        seed = derived_seed(config.seed, fold, epoch + 1)
        torch.manual_seed(seed)
        generator = torch.Generator(device).manual_seed(seed)
        rng = np.random.default_rng(seed)
        ramp = min(1.0, epoch / max(1.0, config.ramp * config.epochs))
        sums: dict[str, Tensor] = {}
        model.train()
        drawn = batches(plan, config, mine, rng)
        for step, batch in enumerate(feed(plan, drawn, share, device)):
            done, rows = epoch * per_epoch + step, batch.rows
            x = augmented(model.f, batch.x, plan, config, Noise(generator, len(rows), share))
            aim = None
            if said_of is not None:
                belief = epoch / max(1, config.epochs - 1)
                aim = aims(said_of[rows], label[rows], batch.labelled, belief)
            with autocast(device):
                loss, terms, reference = _loss(
                    model, config, plan.task, x, present[rows], y[rows], batch.labelled,
                    aim, reference, ramp, generator,
                )  # fmt: skip
            descend(loss, model, ema, optimiser, config, done)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value
        means = {name: float(value) / per_epoch for name, value in sums.items()}
        if not np.isfinite(means["loss"]):
            raise RobultError(
                f"the loss is {means['loss']} in epoch {epoch + 1}; "
                f"give a lower --lr than {config.lr:g}"
            )
        said = np.concatenate(predict(averaged, plan, held_out[share], None), 1)
        said = distributed.whole(said, len(held_out), device)
        if log is None:
            continue
        held_error = oof_error(said, plan.y[held_out], fair, plan.task)
        for name, mean in [*means.items(), ("out_of_fold_error", held_error)]:
            log.add_scalar(name, mean, epoch)
        save_tensors(out / f"epoch-{epoch:03d}.safetensors", ema, {"error": repr(held_error)})
        save_state(out / "state.safetensors", epoch + 1, model, ema, optimiser, reference)
        report(Progress(fold, epoch + 1, means["loss"], means["pseudo/accuracy"]))
    if log is not None:
        log.close()


def _loss(
    model: Robult,
    config: TrainConfig,
    task: Task,
    x: dict[str, Tensor],
    present: Tensor,
    y: Tensor,
    labelled: Tensor,
    aim: Tensor | None,
    reference: Tensor,
    ramp: float,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """L = L_sup + α L_PU + β L_rec + δ L_distil; what to log; the new reference."""
    out = model.latents(distributed.encode(model.f, x, present, generator), present)
    m = present.shape[1]
    # f_0 sees all that is present and, beside it, a random subset of that.
    alive = random_subset(present, generator)
    _, logits_a = model.fuse(out.h, alive)
    answers = [out.logits[:, i] for i in range(m)] + [out.logits_0, logits_a]
    seen = [labelled & present[:, i] for i in range(m)] + [labelled, labelled]
    truth = y if aim is None else aim
    sup = halves(losses.l_sup(a, truth, k, task) for a, k in zip(answers, seen, strict=True))
    distil = torch.zeros_like(sup)
    if aim is not None:
        unseen = [~labelled & present[:, i] for i in range(m)] + [~labelled, ~labelled]
        distil = halves(
            losses.l_sup(a, truth, k, task) for a, k in zip(answers, unseen, strict=True)
        )

    with torch.no_grad():
        said = torch.cat([out.logits, out.logits_0[:, None]], 1).float()
        there = torch.cat([present, present.any(1, keepdim=True)], 1)
        guess = losses.pseudo_labels(said, there, task)
        y_tilde = torch.where(labelled.reshape(-1, *[1] * (y.ndim - 1)), y, guess)
    with torch.autocast(present.device.type, enabled=False):  # cosines over τ want all their bits
        pu = losses.l_pu(
            out.s.float(), out.z.float(), present, y_tilde, labelled, reference,
            tau=config.tau,
            lambda_l=config.lambda_l,
            lambda_u=config.lambda_u * ramp,
            kernel=losses.KERNELS[config.kernel],
            young=ramp < 1,
            alike=losses.ALIKE[task],
        )  # fmt: skip
    rec = losses.l_rec(out.h, model.reconstruct(out.h, out.z), present)
    loss = sup + config.alpha * pu.loss + config.beta * rec + config.delta * distil

    exists = y.isfinite() if y.is_floating_point() else y >= 0
    judged = ~labelled & exists.reshape(len(y), -1).all(1)
    hits = (losses.pseudo_hits(guess, y, task) * judged).sum() / judged.sum().clamp(min=1)
    terms = {
        "loss": loss.detach(),
        "loss/sup": sup.detach(),
        "loss/lb": pu.lb,
        "loss/ulb": pu.ulb,
        "loss/rec": rec.detach(),
        "loss/distil": distil.detach(),
        "mi_bound": pu.mi_bound,
        "pseudo/accuracy": hits,
        "pseudo/share": (~labelled).float().mean(),
        "pseudo/w": pu.w_share,
    }
    return loss, terms, pu.reference


def aims(said: Tensor, label: Tensor, labelled: Tensor, belief: float) -> Tensor:
    """What is to be said of windows [B, K]: what the teacher says, where labelled partly the label.

    Args:
        said: by the teacher [B, K].
        label: as an answer [B, K]; not read where there is none.
        labelled: [B] bool.
        belief: in labels, 0 – 1.
    """
    return torch.where(labelled[:, None], said.lerp(label, belief), said)


def halves(terms: Iterable[Tensor]) -> Tensor:
    """Of a term per branch and the head's two: branches and head count evenly, however many."""
    *branches, all_present, some = terms
    return (torch.stack(branches).mean() + (all_present + some) / 2) / 2


@torch.no_grad()
def predict(
    model: Robult, plan: Plan, rows: np.ndarray, masks: range | None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of every branch and of the head on subsets, NaN where a modality asked for is absent.

    Args:
        model: in evaluation mode.
        plan: holds the windows.
        rows: [n] of the plan.
        masks: subsets, see ``robult_edge.subsets``; None: one answer, from all that is present.

    Returns:
        branch [n, M, K] and head [n, len(masks) or 1, K], float32.
    """
    device = next(model.parameters()).device
    m = len(plan.modalities)
    branch = np.full((len(rows), m, plan.classes), np.nan, np.float32)
    wanted = np.ones((1, m), bool) if masks is None else subsets.as_bools(masks, m)
    head = np.full((len(rows), len(wanted), plan.classes), np.nan, np.float32)
    for begin in range(0, len(rows), 1024):
        part = rows[begin : begin + 1024]
        there = plan.present[part]
        present = torch.from_numpy(there).to(device)
        x = {name: torch.from_numpy(w[part]).to(device) for name, w in plan.windows.items()}
        out = model(x, present)
        span = slice(begin, begin + len(part))
        branch[span][there] = out.logits.cpu().numpy()[there]
        for j, subset in enumerate(wanted):
            alive = there & subset
            fits = alive.any(1) if masks is None else (alive == subset).all(1)
            _, logits = model.fuse(out.h, torch.from_numpy(alive).to(device))
            head[span, j][fits] = logits.cpu().numpy()[fits]
    return branch, head


def oof_error(
    logits: np.ndarray, y: np.ndarray, weight: np.ndarray, task: Task = "classification"
) -> float:
    """Weighted squared error (Brier score), summed over rows, averaged over answers [n, A, K].

    Not log loss, which a few answers that are sure and wrong rule: it ends a training that goes on
    to be right more often. Each answer at its best temperature: temperatures are fitted later
    anyway, and without one here overconfidence would end training long before accuracy does.

    Args:
        logits: [n, A, K], NaN where there is no answer.
        y: [n] or [n, K].
        weight: [n] of each row.
        task: what is asked; values have no temperature.
    """
    total, (_, answers, classes) = 0.0, logits.shape
    truth, link = as_answers(y, classes, task), fusion.LINKS[task]
    temperatures = [1.0] if task == "regression" else np.geomspace(0.5, 5, 12)
    for a in range(answers):
        valid = np.isfinite(logits[:, a]).all(1)
        z, w = logits[valid, a], weight[valid]
        errors = (np.square(link(z / t) - truth[valid]).mean(1) for t in temperatures)
        total += min(float(w @ error) for error in errors)
    return total / answers


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], float]:
    """Averaged weights of an epoch and their `oof_error`.

    Raises:
        RobultError: an earlier version wrote it.
    """
    with safe_open(path, framework="pt") as file:
        error = file.metadata().get("error")
    if error is None:
        raise RobultError(f"{path} is of an earlier version; train again without --resume")
    return load_file(path), float(error)


def pick_device(name: str) -> str:
    """ "auto" is a GPU where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RobultError("--device is cuda, but torch sees no GPU; use --device cpu")
    return name


def autocast(device: torch.device) -> AbstractContextManager:
    """bfloat16 where the GPU has it: half the memory, no loss scale, so nothing more to resume."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def optimiser_of(model: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Fused: so small are the networks that a step in pieces is mostly overhead."""
    return torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )


def descend(
    loss: Tensor,
    model: torch.nn.Module,
    ema: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    config: TrainConfig,
    done: int,
) -> None:
    """One step down ``loss``, the ``done`` + 1st, and into the averaged weights."""
    for group in optimiser.param_groups:
        group["lr"] = config.lr * min(1.0, (done + 1) / config.warmup)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    distributed.average_gradients(model)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    average(ema, model, min(config.ema, (1 + done) / (10 + done)))


@torch.no_grad()
def average(ema: dict[str, Tensor], model: torch.nn.Module, decay: float) -> None:
    now = model.state_dict()
    real = [name for name, value in now.items() if value.is_floating_point()]
    get_ema_multi_avg_fn(decay)([ema[n] for n in real], [now[n] for n in real], None)
    for name in now.keys() - real:
        ema[name].copy_(now[name])


def derived_seed(*parts: int) -> int:
    """A seed of its own for every combination of parts."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])
