"""Training one model on several processes, as torchrun starts them; on one, all of this is idle.

Every rank draws the same batch. Each encodes its share of the rows, which is where the work is;
then the latents H are put together and every rank goes on with the whole batch, so that losses
over all pairs of it are what they are on one process and know nothing of ranks. Batch norms look
at all ranks' rows, random numbers are drawn for the whole batch: the result is one process's, to
rounding. (The encoders rocket and transformer have dropout inside; that is drawn per rank, so with
them the result is one of the same kind, not the same.)

``DistributedDataParallel`` is not used: it wants every loss in one forward pass, averages over
ranks what here is a sum over rows, and has nothing to overlap in networks this small.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robult_edge.errors import RobultError
from robult_edge.nn.robult import Encoders, Robult


@contextmanager
def group(device: str) -> Iterator[None]:
    """Join the processes that torchrun started, if it did.

    Args:
        device: as ``--device``; on GPUs a rank takes that of its number on its machine.
    """
    if "LOCAL_RANK" not in os.environ:
        yield
        return
    # Optimisers import this later, and its default arguments would then hold on to the group,
    # whose threads abort a process that ends before them.
    from torch.distributed.nn import functional  # noqa: F401

    gpu = device != "cpu" and torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo")
    yield
    dist.destroy_process_group()  # after an error others may wait in it; torchrun ends them


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This one's number."""
    return dist.get_rank() if world() > 1 else 0


def leads() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


def share() -> slice:
    """The rows of a batch that this process looks after."""
    return slice(rank(), None, world())


def agreed(decide: Callable[[], bool]) -> bool:
    """What the leading process decides, or raises as a `RobultError`, on all."""
    if world() == 1:
        return decide()
    said: list[Any] = [None]
    if leads():
        try:
            said = [decide()]
        except RobultError as error:
            said = [error]
    dist.broadcast_object_list(said)
    if isinstance(said[0], RobultError):
        raise said[0]
    return said[0]


def encode(
    f: Encoders, x: Mapping[str, Tensor], present: Tensor, generator: torch.Generator
) -> Tensor:
    """H [B, M, d] of the whole batch on every process, with gradient.

    Args:
        f: after ``synchronised``.
        x: per modality the windows of this process's share of the batch.
        present: [B, M] of the whole batch.
        generator: in the same state on every process, and left in it.
    """
    if world() == 1:
        return f(x, present)
    state = generator.get_state()
    seed = torch.randint(1 << 62, (), generator=generator, device=generator.device)
    generator.set_state(state)
    gpus = [present.device] if present.is_cuda else []
    # What encoders draw is their rank's own; what is drawn after them stays in step.
    with torch.random.fork_rng(gpus):
        torch.manual_seed(int(seed) + rank())
        h = f(x, present[share()], present)
    return _together(h, share(), len(present))


def whole(part: np.ndarray, n: int, device: torch.device) -> np.ndarray:
    """Rows [n, ...] of which every process has its share."""
    if world() == 1:
        return part
    return _together(torch.from_numpy(part).to(device), share(), n).cpu().numpy()


def average_gradients(model: nn.Module) -> None:
    """Make every process's gradients their mean; a parameter that none has used keeps none."""
    if world() == 1:
        return
    parameters = list(model.parameters())
    grads = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in parameters]
    used = grads[0].new_tensor([p.grad is not None for p in parameters])
    flat = torch.cat([*(g.flatten() for g in grads), used])
    dist.all_reduce(flat)
    *means, users = (flat / world()).split([*(p.numel() for p in parameters), len(parameters)])
    for p, mean, share_of_users in zip(parameters, means, users.tolist(), strict=True):
        p.grad = mean.view_as(p) if share_of_users else None


def synchronised(model: Robult) -> Robult:
    """The model with batch norms that look at the whole batch; names and values stay."""
    if world() > 1:
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, _BatchNorm):
                    norm = BatchNorm(child.num_features, child.eps, child.momentum)
                    norm.load_state_dict(child.state_dict())
                    setattr(module, name, norm)
    return model


class BatchNorm(_BatchNorm):
    """Batch norm over the rows of all processes; ``nn.SyncBatchNorm`` does that on GPUs alone.

    A process without rows takes part all the same.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """x [b, C, ...], b differing from process to process."""
        if not self.training:
            return super().forward(x)
        dims, across = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
        wide = x.float()
        n = wide.new_tensor([wide.numel() / wide.shape[1]])
        mean = wide.sum(dims) / n.clamp(min=1)
        squares = (wide - mean.reshape(across)).square().sum(dims)
        # Each process's own, side by side; then count, mean and squares of all (Chan et al. 1979).
        one = torch.cat([n, mean, squares])[None]
        every = _together(one, slice(rank(), rank() + 1), world())
        counts, means, all_squares = every.split([1, len(mean), len(mean)], 1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        var = (all_squares + counts * (means - mean).square()).sum(0) / total
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.momentum is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * total / (total - 1), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        out = (wide - mean.reshape(across)) * scale.reshape(across) + self.bias.reshape(across)
        return out.to(x.dtype)


def _together(part: Tensor, rows: slice, n: int) -> Tensor:
    """[n, ...] of which this process has ``rows`` and the others the rest, with gradient.

    The gradient of a part is the sum of what all processes want of it; whoever follows averages
    over processes in the end.
    """
    out = part.new_zeros(n, *part.shape[1:])
    out[rows] = part
    return _Sum.apply(out)


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Sum.apply(grad)
