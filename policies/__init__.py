"""The rules of Glovebox as pure functions over plain values: no I/O, no framework."""
