"""The arms of the pipeline: what each learns from."""

from dataclasses import replace

from training_fixture import BASE

from prerank.models.options import Distill
from prerank.training.ladder import ladder


def test_all_and_the_ablation_of_it():
    distill = Distill(score=0.3, contrast=0.7, temperature=0.2)
    arms = {name: arm for name, (_, arm) in ladder(replace(BASE, distill=distill)).items()}
    assert all(arm.name == name for name, arm in arms.items())

    def parts(arm):
        return {*arm.strategies[1:]} | {name for name in ("score", "contrast") if getattr(arm.distill, name)}

    every = {"low_rank_negatives", "rank_pairs", "bin_pairs", "score"}
    assert parts(arms["all"]) == every and not parts(arms["base"])
    assert all(parts(arms[name]) == {name} and parts(arms[f"no_{name}"]) == every - {name} for name in every)
    assert parts(arms["contrast"]) == {"contrast"} and parts(arms["and_contrast"]) == every | {"contrast"}
    assert len(arms) == 2 + 2 * len(every) + 2
    assert all(arm.strategies[0] == "exposed" and arm.distill.temperature == 0.2 for arm in arms.values())


def test_what_has_no_weight_is_neither_added_nor_left_out():
    assert "and_contrast" not in ladder(replace(BASE, distill=Distill(score=0.3)))
    assert "no_score" not in ladder(replace(BASE, distill=Distill(contrast=0.3)))
