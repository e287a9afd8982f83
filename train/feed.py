"""Batches on their way to the device: the next is read while one is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from train.plan import Plan

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """What a step is given.

    Attributes:
        rows: [B] of the plan.
        labelled: [B] bool.
        x: per modality the windows of this process's share of the rows, raw units.
    """

    rows: Tensor
    labelled: Tensor
    x: dict[str, Tensor]

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """With every tensor changed."""
        x = {name: change(windows) for name, windows in self.x.items()}
        return Batch(change(self.rows), change(self.labelled), x)


def feed(
    plan: Plan, drawn: Iterable[tuple[Tensor, Tensor]], share: slice, device: torch.device
) -> Iterator[Batch]:
    """The batches whose (rows, labelled) are drawn, on the device; only their windows are read.

    To a GPU they go from pinned memory, while it works.
    """

    def read() -> Iterator[Batch]:
        for rows, labelled in drawn:
            mine = rows[share].numpy()
            x = {name: torch.from_numpy(w[mine]) for name, w in plan.windows.items()}
            batch = Batch(rows, labelled, x)
            yield batch.each(Tensor.pin_memory) if device.type == "cuda" else batch

    for batch in ahead(read()):
        yield batch.each(lambda tensor: tensor.to(device, non_blocking=True))


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; a thread makes the next one while one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
