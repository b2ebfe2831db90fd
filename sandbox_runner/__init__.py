"""Run code that nobody trusts on data that must not leave. Knows nothing of the portal."""
