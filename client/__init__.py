"""The portal's API from a program or a terminal; needs nothing of the portal itself."""
