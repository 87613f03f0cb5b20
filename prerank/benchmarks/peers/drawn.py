"""How many items and pairs of a request each peer of build_samples draws, as it does with its defaults."""

RANK, BINS, OF_BIN, UNIFORM, TAIL, PAIRS = 20, 10, 3, 30, 20, 200
KEY = ["request_id", "item_id"]
