"""The backends, weakest to strongest, and the choice among them."""

from __future__ import annotations

from sandbox_runner.backends.choice import BACKENDS, choose
from sandbox_runner.backends.interface import Backend, Line, RunningSandbox

__all__ = ["BACKENDS", "Backend", "Line", "RunningSandbox", "choose"]
