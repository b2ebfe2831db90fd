"""Epsilon of a training: Opacus' accountant of the Poisson-subsampled Gaussian mechanism.

Renyi differential privacy (Mironov, Talwar and Zhang, arXiv:1908.10530): at each order an upper
bound, and the least over the orders is one too. The accountant that composes privacy loss
numerically (PRV) is closer, with an error of its own; we keep the bound.
"""

from __future__ import annotations

import warnings
from typing import Final

from opacus import __version__
from opacus.accountants import RDPAccountant

from policies.privacy import LEAST_NOISE, MOST_NOISE, PrivateTraining

ACCOUNTANT: Final = f"RDP (Opacus {__version__})"
#: Higher ones than Opacus takes by default, for small epsilon.
ORDERS: Final = [*RDPAccountant.DEFAULT_ALPHAS, *range(64, 129, 4), 160, 192, 256, 320, 384, 512]
_DIGITS: Final = 4


def epsilon_of(noise: float, rate: float, steps: int, delta: float) -> float:
    """Return epsilon at delta after so many steps."""
    account = RDPAccountant()
    account.history = [(noise, rate, steps)]
    return spent(account, delta)


def spent(account: RDPAccountant, delta: float) -> float:
    """Return epsilon at delta of what an accountant was told."""
    with warnings.catch_warnings():
        # That another order might be closer is no fault of a bound.
        warnings.simplefilter("ignore")
        # The conversion from orders to epsilon may fall below 0 where next to nothing was spent.
        return max(0.0, float(account.get_epsilon(delta=delta, alphas=ORDERS)))


def noise_for(asked: PrivateTraining, delta: float) -> float | None:
    """Return the least noise with which every step fits into the budget, None where none does."""
    low, high = LEAST_NOISE, MOST_NOISE
    if epsilon_of(high, asked.rate, asked.steps, delta) > asked.epsilon:
        return None
    if epsilon_of(low, asked.rate, asked.steps, delta) <= asked.epsilon:
        return low
    while high - low > 10.0**-_DIGITS:
        middle = (low + high) / 2
        if epsilon_of(middle, asked.rate, asked.steps, delta) <= asked.epsilon:
            high = middle
        else:
            low = middle
    return high


def steps_for(asked: PrivateTraining, noise: float, delta: float) -> int:
    """Return how many steps fit into the budget, at most those that were asked for."""
    low, high = 0, asked.steps
    while low < high:
        middle = (low + high + 1) // 2
        if epsilon_of(noise, asked.rate, middle, delta) <= asked.epsilon:
            low = middle
        else:
            high = middle - 1
    return low
