"""The one network, its losses and its files: what is trained, from what it learns, and how it is kept."""
