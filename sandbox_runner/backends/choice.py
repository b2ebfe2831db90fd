"""Choose a backend, never below the minimum that a dataset's policy names."""
from __future__ import annotations
BACKENDS=()
def choose(): ...
