"""What ``python -m train.evaluate`` is to be asked for the cells of a folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from train.grid import DATASETS, FEW, MANY, METHODS, QUICK, Cell, Grid


def grid_of(cells: Iterable[Cell], settings: dict[str, Any]) -> Grid:
    """The smallest grid to ask for that holds ``cells``; they need not fill it.

    ``settings`` are the folder's. A variant with other shares of labels than its usual one is left
    out: it can be asked for by itself alone.
    """
    form, cells = _form(settings), set(cells)
    grid = replace(
        form,
        datasets=_ordered({c.dataset for c in cells}, list(DATASETS)),
        methods=_ordered({c.method for c in cells}, METHODS),
        labels=tuple(sorted({c.labels for c in cells if not _comes_with(c, cells)})),
        seeds=1 + max(c.seed for c in cells),
        encoder=settings["encoder"],
        config=replace(form.config, epochs=settings["epochs"]),
    )
    if cells <= set(grid.cells()):
        return grid
    usual = dict.fromkeys(cell.variant for cell in Grid(seeds=1).with_variants(()).cells())
    return grid.with_variants(_ordered({c.variant for c in cells}, list(usual)))


def command(grid: Grid, settings: dict[str, Any], out: str) -> str:
    """The line that makes ``grid``'s cells in ``out``, in the repository's root."""
    form = _form(settings)
    words = ["python", "-m", "train.evaluate", *(["--quick"] if settings["short"] else [])]
    for name, now, usual in (
        ("datasets", grid.datasets, form.datasets),
        ("methods", grid.methods, form.methods),
        ("labels", grid.labels, form.labels),
        ("seeds", (grid.seeds,), (form.seeds,)),
        ("variants", grid.only, form.only),
        ("encoder", (grid.encoder,), (form.encoder,)),
        ("epochs", (grid.config.epochs,), (form.config.epochs,)),
    ):
        if now != usual:
            words += [f"--{name}", *(f"{v:g}" if isinstance(v, float) else str(v) for v in now)]
    return shlex.join([*words, "--out", out])


def _form(settings: dict[str, Any]) -> Grid:
    return QUICK if settings["short"] else Grid()


def _comes_with(cell: Cell, cells: set[Cell]) -> bool:
    """Late fusion with many labels is run beside that with few, unasked."""
    usual = (MANY, "supervised", "default")
    return (cell.labels, cell.method, cell.variant) == usual and any(c.labels == FEW for c in cells)


def _ordered(names: set[str], usual: Sequence[str]) -> tuple[str, ...]:
    return (*(n for n in usual if n in names), *sorted(names - set(usual)))
