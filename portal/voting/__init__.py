"""What requests and releases share: people vote, blind, on something bound to a digest."""
