"""Trusted trainers: the user brings a network and a configuration, ours does the training."""
