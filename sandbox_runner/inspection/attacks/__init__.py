"""Attacks on the network itself: who was in its training, and what it can still say of them."""
