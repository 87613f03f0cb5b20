"""What an objective weighs in the score beside the click: from the click alone to the others alone."""

from ray import tune

SPACE = {
    # Those of one objective come first, so that a grid of few trials has them; * is all labels of schema.json but the
    # click. With several labels name each, as click=1,converted=0.5,liked=0.2.
    "fusion": tune.choice(
        ["click=1", "*=1", *(f"click={share},*={1 - share:.3g}" for share in (0.5, 0.7, 0.3, 0.85, 0.15, 0.6, 0.4))]
    ),
}
