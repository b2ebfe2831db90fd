"""What all pages share: the menu, states as words, charts, the start page."""
