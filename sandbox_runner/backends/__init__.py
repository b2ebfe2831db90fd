"""The backends, weakest to strongest, and the choice among them."""
