"""Private training: our trainer, on a closed graph, with noise and an account (decision 26)."""
