"""What a student learns from its teacher: λ, the contrast with its τ and α, and whose pairs."""

from ray import tune

SPACE = {
    "distill.score": tune.loguniform(0.1, 10.0),
    "distill.contrast": tune.loguniform(0.03, 3.0),
    "distill.temperature": tune.loguniform(0.03, 1.0),
    "distill.of_bin": tune.uniform(0.0, 1.0),
    "distill.ordered": tune.choice([True, False]),
    "strategy": tune.choice(
        ["exposed", "exposed,low_rank_negatives", "exposed,low_rank_negatives,rank_pairs,bin_pairs"]
    ),
}
