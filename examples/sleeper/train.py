"""Runs until somebody stops it: shows that a lapsed grant does."""

import time

import glovebox

for step in range(100_000):
    glovebox.log(step, beats=float(step))
    time.sleep(1)
