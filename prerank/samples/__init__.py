"""Training samples: drawn pairs and rank bins, their files, and batches read from them."""
