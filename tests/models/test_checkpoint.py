"""Finished models: read back as they were, refused where they do not fit."""

import copy
import json

import pytest
import torch
from logs_fixture import SCHEMA
from safetensors.torch import load_file, save_file
from samples_fixture import random_teacher

from prerank.core.errors import InputError
from prerank.logs.schema import parse_schema
from prerank.models.checkpoint import load_model, require_same_features


@pytest.fixture
def folder(samples, tmp_path):
    return random_teacher(samples, tmp_path / "teacher", features=("price", "brand", "match"), seed=3)


def test_round_trip(folder, samples, tmp_path):
    again = random_teacher(samples, tmp_path / "again", features=("price", "brand", "match"), seed=3)
    first, second = load_model(folder, kind="teacher"), load_model(again, kind="teacher")
    assert first.arch.features == ("price", "brand", "match") and first.arch.widths == (16, 8)
    for name, value in first.ranker.state_dict().items():
        assert torch.equal(value, second.ranker.state_dict()[name])
    assert torch.any(first.ranker.embed.mean_1 != 0)  # the statistics travel with the weights


def test_nothing_is_pickled(folder):
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


def test_another_kind_and_other_weights_are_refused(folder):
    with pytest.raises(InputError, match="holds teacher, expected student"):
        load_model(folder, kind="student")
    (folder / "arch.json").write_text(json.dumps({"features": ["price", "brand", "match"], "widths": [16, 9]}))
    with pytest.raises(InputError, match=r"model.safetensors: does not fit schema.json and arch.json"):
        load_model(folder, kind="teacher")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:40])
    with pytest.raises(InputError, match=r"model.safetensors: does not fit schema.json and arch.json"):
        load_model(folder, kind="teacher")
    (folder / "arch.json").write_text("{}")
    with pytest.raises(InputError, match=r"arch.json: expected"):
        load_model(folder, kind="teacher")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: f.update(size=13), "feature 'brand' has size 13, but the model in .* was trained with 12"),
        (lambda f: f.update(name="brend"), "feature 'brand' is missing"),
    ],
)
def test_data_of_another_schema_are_refused(folder, change, complaint):
    raw = copy.deepcopy(SCHEMA)
    change(next(f for f in raw["features"] if f["name"] == "brand"))
    raw.pop("hand_picked")
    model = load_model(folder, kind="teacher")
    with pytest.raises(InputError, match=complaint):
        require_same_features(model, parse_schema(raw, "test"), folder=folder, where=folder)


@pytest.mark.parametrize("name", ["model.safetensors", "stats.json", "arch.json", "schema.json"])
def test_a_folder_that_was_copied_in_part_is_refused(folder, name):
    (folder / name).rename(folder.parent / name)
    with pytest.raises(InputError, match=f"teacher: {name} is missing, one of 1 files of manifest.json"):
        load_model(folder, kind="teacher")
    (folder.parent / name).rename(folder / name)
    load_model(folder, kind="teacher")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder, value):
    weights = load_file(folder / "model.safetensors")
    name = max(weights, key=lambda name: weights[name].numel())
    weights[name].view(-1)[-1] = value
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(InputError, match=f"model.safetensors: {name} holds what is no number"):
        load_model(folder, kind="teacher")
