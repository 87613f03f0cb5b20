"""A search: its history in figures, what a page says of the network that was found, and methods at equal budgets."""
