"""The main job, from originals to a signed model, as its people do it over the portal's own API."""
