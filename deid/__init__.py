"""De-identification: a library and a command of its own that knows nothing of the portal."""
