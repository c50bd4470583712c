"""Word problems with steps and an answer."""
