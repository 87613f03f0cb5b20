"""Features and widths under a latency budget: AutoFAS, its rivals, what fits derived exactly, and their contest."""
