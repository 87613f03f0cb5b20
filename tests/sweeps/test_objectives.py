"""A sweep of fusions: its space, what it does not go with, and its front on the test days."""

import json
from dataclasses import replace

import pytest
from labels_fixture import taught_of_both

from prerank.core.errors import InputError
from prerank.models.fusion import Fusion
from prerank.models.options import Optim
from prerank.sweeps import resume
from prerank.training.options import Compute
from workflows import front, tune
from workflows.tune import Tune


@pytest.fixture(scope="module")
def config(logs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("objectives")
    labelled, _, teacher, taught = taught_of_both(logs, folder)
    return Tune(
        "objectives",
        taught,
        labelled,
        str(teacher),
        folder / "sweep",
        trials=3,
        sampler="grid",
        scheduler="none",
        features="price,brand,match",
        widths="8",
        k=10,
        optim=Optim(batch=16, epoch_steps=1, epochs=2),
        compute=Compute(cpus=0.5),
    )


def test_the_space_begins_with_the_single_objectives(config):
    space = tune.space_of(config)
    [(key, domain)] = space.items()
    fusions = [tune.planned_by(config, {key: text}, searches=False).arm.fusion for text in domain.categories]
    assert fusions[0] == Fusion() and fusions[1] == Fusion(("converted",), (1.0,))
    assert all(set(fusion.heads) == {"click", "converted"} for fusion in fusions[2:])
    assert len({fusion.shares for fusion in fusions}) == len(fusions) == 9


@pytest.mark.parametrize("options", [{"sampler": "tpe"}, {"scheduler": "asha", "sampler": "random"}])
def test_no_metric_tells_which_fusion_is_better(config, options):
    config = replace(config, **options)
    with pytest.raises(InputError, match="cannot be told better or worse by one metric; give --sampler grid"):
        tune.plan_of(config, False).check(tune.space_of(config))


def test_a_sweep_from_before_there_were_fusions_is_gone_on_with(tmp_path):
    resume.begin(tmp_path, {"trials": 3}, resume=False)
    resume.begin(tmp_path, {"trials": 3, "fusion": ""}, resume=True)
    with pytest.raises(InputError, match="fusion was '', now 'click=1'"):
        resume.begin(tmp_path, {"trials": 3, "fusion": "click=1"}, resume=True)


def test_a_front_needs_labels_and_students(config, logs, tmp_path):
    with pytest.raises(InputError, match="no 'labels' beside the click"):
        front.main(front.FrontOf(logs, config.teacher, tmp_path, k=10))
    with pytest.raises(InputError, match="no student; name a sweep"):
        front.main(front.FrontOf(config.logs, config.teacher, tmp_path, k=10))


@pytest.mark.ray
def test_a_sweep_ends_in_a_front(ray_cluster, config):
    tune.main(config)
    found = json.loads((config.out / "front.json").read_text())
    assert {point["name"] for point in found["points"]} == {"click", "converted=1", "click=0.5,converted=0.5"}
    assert {point["alone"] for point in found["points"]} == {"click", "converted", None}
    assert any(point["on_front"] for point in found["points"])
    assert (config.out / "front.png").stat().st_size > 10_000 and (config.out / "front.parquet").is_file()
    again = tune.main(replace(config, resume=True))
    assert again["epochs"] and json.loads((config.out / "front.json").read_text()) == found
