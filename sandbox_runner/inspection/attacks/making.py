"""Let a network make pictures: a generator from noise, an autoencoder by settling, a classifier
by following what it answers."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sandbox_runner.inspection.attacks.asking import Asker
from sandbox_runner.inspection.attacks.population import HELD_OUT, MEMBER, Population
from sandbox_runner.inspection.attacks.task import Task
from sandbox_runner.oracle import OracleFault

Floats32 = NDArray[np.float32]

MADE: Final = 256
STARTS: Final = 96
ROUNDS: Final = 12
#: Of few classes each is climbed to from several starts.
CLIMBS: Final = 32
MOST_CLIMBS: Final = 64
STEPS: Final = 40
#: So many steps show most of what there is; without them, the attack is not finished.
LEAST_STEPS: Final = 15
#: Directions tried a step where there is no gradient (Wierstra et al., Natural Evolution
#: Strategies, JMLR 2014), each on a grid of so many numbers a side.
DIRECTIONS: Final = 12
GRID: Final = 8


def generate(asker: Asker, task: Task, seed: int = 0) -> Floats32:
    """Return pictures [n, H, W] of a generator, from normal numbers and from corners of them.

    Raises OracleFault and OutOfTime.
    """
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(MADE, task.latent)).astype(np.float32)
    # A network may hide a sample behind rare input: one number set, all others zero.
    corners = np.concatenate([np.eye(task.latent), -np.eye(task.latent)])[:MADE].astype(np.float32)
    latents = np.concatenate([normal, corners])
    size = task.size[0] * task.size[1]
    answers = asker.shuffled(
        len(latents),
        lambda chosen: latents[chosen],
        lambda batch: asker.network.predict(batch, size),
    )
    if answers.shape[1] != size:
        raise OracleFault("shape")
    return answers.reshape(-1, *task.size)


def settle(asker: Asker, population: Population, task: Task, seed: int = 0) -> Floats32:
    """Return what an autoencoder makes of noise and mixtures, its answer asked about again.

    An overfitted one settles on its training samples (Radhakrishnan, Belkin and Uhler,
    Overparameterized neural networks implement associative memory, PNAS 2020).
    """
    starts = _starts(population, STARTS, np.random.default_rng(seed))
    size = task.size[0] * task.size[1]
    for _ in range(ROUNDS):
        given = starts
        answers = asker.shuffled(
            len(given),
            lambda chosen, given=given: given[chosen],  # type: ignore[misc]
            lambda batch: asker.network.predict(batch, size),
        )
        if answers.shape[1] != size:
            raise OracleFault("shape")
        starts = np.clip(answers.reshape(given.shape), -1.0, 2.0)
    return starts[:, 0]


def climb(asker: Asker, population: Population, classes: int, seed: int = 0) -> Floats32:
    """Return pictures for which a classifier is surest of a class (Fredrikson et al., CCS 2015).

    Gradients where the network gives them, else evolution strategies over coarse pictures; smooth
    steps, for single pixels fool a network without showing anything.
    """
    rng = np.random.default_rng(seed)
    count = CLIMBS if classes <= CLIMBS else MOST_CLIMBS
    pictures = _starts(population, count, rng)
    width = asker.network.predict(pictures[:1]).shape[1]
    weights = np.zeros((count, width), np.float32)
    for place in range(count):
        number = place % max(2, classes)
        if width == 1:
            weights[place, 0] = 1.0 if number % 2 else -1.0
        else:
            weights[place] = -1.0 / (width - 1)
            weights[place, number % width] = 1.0
    spread = max(float(population.pixels.std()), 1e-3)
    blind = False
    for step in range(STEPS):
        if step >= LEAST_STEPS and asker.left <= 0:
            break
        asker.check()
        if not blind:
            try:
                slope = asker.network.gradient(pictures, weights)
                blind = not np.abs(slope).max() > 0
            except OracleFault as fault:
                if fault.reason not in ("gradient", "shape", "not-finite"):
                    raise
                blind = True
        if blind:
            slope = _guessed(asker, pictures, weights, spread, rng)
        slope = _smooth(slope)
        size = np.abs(slope).max(axis=(1, 2, 3), keepdims=True)
        pace = 0.3 * spread * (1 - step / STEPS)
        pictures = np.clip(pictures + pace * slope / np.maximum(size, 1e-12), 0.0, 1.0)
        pictures = pictures.astype(np.float32)
    return pictures[:, 0]


def _guessed(
    asker: Asker,
    pictures: Floats32,
    weights: Floats32,
    spread: float,
    rng: np.random.Generator,
) -> Floats32:
    """Return a slope from answers alone: pairs of opposite steps along coarse random pictures."""
    height, width = pictures.shape[2:]
    rows = np.minimum(np.arange(height) * GRID // height, GRID - 1)
    columns = np.minimum(np.arange(width) * GRID // width, GRID - 1)
    slope = np.zeros_like(pictures)
    for _ in range(DIRECTIONS):
        asker.check()
        coarse = rng.normal(size=(len(pictures), 1, GRID, GRID)).astype(np.float32)
        way = coarse[:, :, rows][:, :, :, columns]
        ahead = asker.network.predict((pictures + 0.5 * spread * way).astype(np.float32))
        behind = asker.network.predict((pictures - 0.5 * spread * way).astype(np.float32))
        if ahead.shape != weights.shape or behind.shape != weights.shape:
            raise OracleFault("shape")
        slope += ((ahead - behind) * weights).sum(axis=1)[:, None, None, None] * way
    return np.asarray(slope / DIRECTIONS, dtype=np.float32)


def _smooth(slope: Floats32) -> Floats32:
    """Return the slope with high frequencies taken down."""
    height, width = slope.shape[2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spectrum = np.fft.rfft2(slope) / (1 + (frequency / 0.1) ** 2)
    return np.asarray(np.fft.irfft2(spectrum, (height, width)), dtype=np.float32)


def _starts(population: Population, count: int, rng: np.random.Generator) -> Floats32:
    """Return noise and mixtures of many pictures, members and others in equal parts."""
    both = population.of(MEMBER, HELD_OUT)
    sides = [np.flatnonzero(side) for side in (both.members, ~both.members)]
    height, width = both.pixels.shape[2:]
    mean, spread = float(both.pixels.mean()), float(both.pixels.std())
    starts = np.zeros((count, 1, height, width), np.float32)
    for place in range(count):
        if place % 2:
            starts[place] = rng.normal(mean, spread, (1, height, width))
        else:
            chosen = np.concatenate([rng.permutation(side)[:8] for side in sides if len(side)])
            starts[place] = both.pixels[chosen].mean(axis=0)
            starts[place] += rng.normal(0, 0.2 * spread, (1, height, width))
    return np.clip(starts, 0.0, 1.0)
