"""``synthetic``: any number of sensors with a known amount of each kind of information.

A window is a sum of tones. Each component has a band of its own with one frequency per class, so
a component *says* a class. With Y the class, uniform over K:

- redundant: one word, the same in all sensors; it is Y with probability ``redundant``;
- unique: one word per sensor, each for itself Y with probability ``unique``;
- synergy: one random word a_i per sensor with Σ a_i ≡ Y (mod K) with probability ``synergy``:
  any M − 1 sensors know nothing of it (XOR for K = M = 2).

A word that is not Y by design is drawn uniformly, so each carries ``bits(share, K)``.

``task=multilabel`` asks for the binary digits of Y in place of Y, ``task=regression`` for its
value.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy as np

from robult_edge.data.dataset import Dataset, from_windows
from robult_edge.errors import SpecError
from robult_edge.modality import ModalitySpec
from robult_edge.task import Task

RATE_HZ, WINDOW = 50.0, 64


@dataclass(frozen=True)
class Mixture:
    """Settings of the synthetic data set, ``synthetic:name=value,...``.

    Attributes:
        redundant, unique, synergy: share of windows in which the component tells the class.
        modalities: M.
        classes: K.
        windows: N.
        groups: each with its own gain and offset per channel; a quarter are held out.
        noise: standard deviation against tones of amplitude 1.
        seed: of everything.
        task: in which form Y is asked for.
    """

    redundant: float = 0.6
    unique: float = 0.4
    synergy: float = 0.0
    modalities: int = 3
    classes: int = 4
    windows: int = 2400
    groups: int = 12
    noise: float = 0.5
    seed: int = 0
    task: Task = "classification"


def bits(share: float, classes: int) -> float:
    """Mutual information, bits, of a word that is the class with probability ``share``."""
    hit = share + (1 - share) / classes
    miss = (1 - share) / classes
    entropy = -hit * np.log2(hit) - (classes - 1) * (miss * np.log2(miss) if miss > 0 else 0.0)
    return float(np.log2(classes) - entropy)


def load(source: str) -> Dataset:
    """The data set of a source such as ``synthetic:synergy=0.9,modalities=2``.

    Raises:
        SpecError: an unknown setting or a value out of range.
    """
    return make(_parse(source), source)


def make(mix: Mixture, name: str = "synthetic") -> Dataset:
    """Draw the data set."""
    rng = np.random.default_rng(mix.seed)
    n, m, k = mix.windows, mix.modalities, mix.classes
    y = rng.integers(k, size=n)
    words = _words(mix, y, rng)
    groups = np.sort(np.arange(n) % mix.groups)
    modalities = tuple(
        ModalitySpec(
            name=f"s{i}",
            channels=("a", "b"),
            unit="1",
            rate_hz=RATE_HZ,
            window=WINDOW,
            hop=WINDOW,
            timeout_s=2 * WINDOW / RATE_HZ,
        )
        for i in range(m)
    )
    t = np.arange(WINDOW) / WINDOW
    windows = {}
    for i, spec in enumerate(modalities):
        x = rng.normal(0, mix.noise, (n, 2, WINDOW))
        for band, said in enumerate(words[:, :, i]):
            # Whole cycles per window, as far apart as three bands below Nyquist (32) allow.
            cycles = 1 + (band * k + said) * (30 // (3 * k))
            phase = rng.uniform(0, 2 * np.pi, (n, 2))
            x += np.sin(2 * np.pi * cycles[:, None, None] * t + phase[:, :, None])
        gain = rng.uniform(0.8, 1.25, (mix.groups, 2, 1))
        offset = rng.normal(0, 0.2, (mix.groups, 2, 1))
        windows[spec.name] = (x * gain[groups] + offset[groups]).astype(np.float32)
    names = np.array([f"g{g:02d}" for g in groups])
    distinct = np.unique(names)
    classes, truth = _asked(mix, y)
    return from_windows(
        name=name,
        classes=classes,
        modalities=modalities,
        windows=windows,
        y=truth,
        groups=names,
        test_groups=tuple(distinct[-max(1, mix.groups // 4) :].tolist()),
        invariances={spec.name: ("jitter", "scale") for spec in modalities},
        task=mix.task,
        units=("1",) if mix.task == "regression" else (),
    )


def _asked(mix: Mixture, y: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the outputs, and the truth in the task's form."""
    if mix.task == "regression":
        return ("y",), y[:, None].astype(np.float32)
    if mix.task == "multilabel":
        digits = np.arange((mix.classes - 1).bit_length())
        return tuple(f"bit{d}" for d in digits), y[:, None] >> digits & 1
    return tuple(f"c{c}" for c in range(mix.classes)), y


def _words(mix: Mixture, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What each component says in each sensor: [components, N, M]; one of no share is left out."""
    n, m, k = mix.windows, mix.modalities, mix.classes
    said = []
    if mix.redundant:
        told = np.where(rng.random(n) < mix.redundant, y, rng.integers(k, size=n))
        said.append(np.repeat(told[:, None], m, 1))
    if mix.unique:
        told = rng.random((n, m)) < mix.unique
        said.append(np.where(told, y[:, None], rng.integers(k, size=(n, m))))
    if mix.synergy:
        target = np.where(rng.random(n) < mix.synergy, y, rng.integers(k, size=n))
        free = rng.integers(k, size=(n, m - 1))
        said.append(np.concatenate([free, ((target - free.sum(1)) % k)[:, None]], 1))
    return np.stack(said) if said else np.zeros((0, n, m), int)


def _parse(source: str) -> Mixture:
    kinds = {f.name: type(getattr(Mixture, f.name)) for f in fields(Mixture)}
    given: dict[str, Any] = {}
    for part in filter(None, source.partition(":")[2].split(",")):
        key, _, value = part.partition("=")
        if key not in kinds:
            raise SpecError(f"{source}: unknown setting {key!r}; known are {', '.join(kinds)}")
        try:
            given[key] = kinds[key](value)
        except ValueError:
            raise SpecError(
                f"{source}: {key} is {value!r}; it must be a number, e.g. {getattr(Mixture, key)}"
            ) from None
    mix = Mixture(**given)
    if mix.task not in get_args(Task):
        raise SpecError(
            f"{source}: task is {mix.task!r}; it must be of {', '.join(get_args(Task))}"
        )
    for key, low, high in (
        ("redundant", 0, 1),
        ("unique", 0, 1),
        ("synergy", 0, 1),
        ("modalities", 1, 12),
        ("classes", 2, 10),
        ("groups", 2, mix.windows),
    ):
        if not low <= getattr(mix, key) <= high:
            raise SpecError(f"{source}: {key} is {getattr(mix, key)}; it must be {low} to {high}")
    return mix
