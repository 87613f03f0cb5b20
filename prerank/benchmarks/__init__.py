"""What the system itself costs: rates, memory, the size of a cluster."""
