"""What a student learns from its teacher: λ, the contrast and its τ, the rank bins, and whose pairs."""

from ray import tune

SPACE = {
    "distill.score": tune.loguniform(0.1, 10.0),
    "distill.contrast": tune.loguniform(0.03, 3.0),
    "distill.temperature": tune.loguniform(0.03, 1.0),
    "distill.merge_bins": tune.choice([1, 2, 5]),
    "strategy": tune.choice(
        ["exposed", "exposed,low_rank_negatives", "exposed,low_rank_negatives,rank_pairs,bin_pairs"]
    ),
}
