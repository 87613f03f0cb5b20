"""A pipeline's results: every arm against the base, in a terminal and on a page."""
