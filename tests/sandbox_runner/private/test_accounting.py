"""Epsilon against accountants of our own: it agrees with them and is never below what was spent."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from policies.privacy import PrivateTraining
from sandbox_runner.private import accounting

# Noise, rate, steps, delta: from strict to next to nothing.
CASES = [
    (3.26, 0.2, 300, 1e-3),
    (1.46, 0.15, 200, 1e-3),
    (1.0, 0.02, 1000, 1e-5),
    (0.6, 0.05, 100, 1e-4),
    (5.0, 1.0, 40, 1e-3),
    (20.0, 0.3, 50, 1e-4),
]


def renyi(noise: float, rate: float, order: float) -> mpmath.mpf:
    """The Renyi divergence by its definition: an integral, where Opacus sums a series."""

    def ratio(x: mpmath.mpf) -> mpmath.mpf:
        return 1 - rate + rate * mpmath.exp((2 * x - 1) / (2 * mpmath.mpf(noise) ** 2))

    def density(x: mpmath.mpf) -> mpmath.mpf:
        return mpmath.npdf(x, 0, noise) * ratio(x) ** order

    far = (order + 12) * max(1, noise)
    places = np.linspace(-12 * noise, float(far), 25).tolist()
    return mpmath.log(mpmath.quad(density, places)) / (order - 1)


def epsilon_by_integrals(noise: float, rate: float, steps: int, delta: float) -> float:
    """Epsilon by the theorem of Balle et al. (arXiv:1905.09982) over a few orders."""
    orders = [1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 14, 20, 32, 48]
    return min(
        float(steps * renyi(noise, rate, a))
        + math.log1p(-1 / a)
        - (math.log(delta) + math.log(a)) / (a - 1)
        for a in orders
    )


def epsilon_by_losses(noise: float, rate: float, steps: int, delta: float) -> float:
    """What is really spent: the privacy loss of one step on a grid, composed by FFT.

    Both directions, a subject added and one taken away; the larger counts.
    """
    grid, reach = 2e-4, 40.0
    size = int(2 * reach / grid)
    x = np.linspace(-14 * noise, 1 + 14 * noise, 400_001)
    middle = (x[1:] + x[:-1]) / 2
    width = x[1] - x[0]
    zero = np.exp(-(middle**2) / (2 * noise**2)) / (noise * math.sqrt(2 * math.pi)) * width
    one = np.exp(-((middle - 1) ** 2) / (2 * noise**2)) / (noise * math.sqrt(2 * math.pi)) * width
    mixed = (1 - rate) * zero + rate * one
    loss = np.log1p(rate * np.expm1((2 * middle - 1) / (2 * noise**2)))
    worst = 0.0
    for mass, losses in ((mixed, loss), (zero, -loss)):
        places = np.rint(losses / grid).astype(np.int64) % size
        step = np.bincount(places, weights=mass / mass.sum(), minlength=size)
        whole = np.fft.irfft(np.fft.rfft(step) ** steps, size)
        at = np.fft.fftfreq(size, 1 / size) * grid
        order = np.argsort(at)
        at, whole = at[order], np.clip(whole[order], 0, None)
        low, high = 0.0, reach
        for _ in range(60):
            epsilon = (low + high) / 2
            above = at > epsilon
            spent = float((whole[above] * -np.expm1(epsilon - at[above])).sum())
            low, high = (epsilon, high) if spent > delta else (low, epsilon)
        worst = max(worst, high)
    return worst


@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), CASES)
def test_epsilon_is_never_below_what_was_spent_and_close_to_it(
    noise: float, rate: float, steps: int, delta: float
) -> None:
    told = accounting.epsilon_of(noise, rate, steps, delta)
    spent = epsilon_by_losses(noise, rate, steps, delta)
    assert spent - 0.005 <= told <= 1.35 * spent + 0.05


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta"),
    [CASES[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES[1:4])],
)
def test_epsilon_is_the_bound_that_integrals_give(
    noise: float, rate: float, steps: int, delta: float
) -> None:
    told = accounting.epsilon_of(noise, rate, steps, delta)
    bound = epsilon_by_integrals(noise, rate, steps, delta)
    # More orders are tried than here, so that the bound may be lower, not by much.
    assert told <= bound + 1e-6
    assert told >= 0.97 * bound


def test_noise_is_chosen_to_fit_and_not_larger() -> None:
    asked = PrivateTraining(epsilon=4, steps=300, rate=0.2, learning_rate=0.1)
    noise = accounting.noise_for(asked, 1e-3)
    assert noise is not None
    assert accounting.epsilon_of(noise, 0.2, 300, 1e-3) <= 4
    assert accounting.epsilon_of(noise - 0.001, 0.2, 300, 1e-3) > 4
    least = PrivateTraining(epsilon=1e-6, steps=100_000, rate=1.0, learning_rate=0.1)
    assert accounting.noise_for(least, 1e-9) is None


def test_training_stops_before_the_step_that_does_not_fit() -> None:
    asked = PrivateTraining(epsilon=3, steps=10_000, rate=0.2, learning_rate=0.1, noise=2.0)
    steps = accounting.steps_for(asked, 2.0, 1e-3)
    assert 0 < steps < 10_000
    assert accounting.epsilon_of(2.0, 0.2, steps, 1e-3) <= 3
    assert accounting.epsilon_of(2.0, 0.2, steps + 1, 1e-3) > 3
