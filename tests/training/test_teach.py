"""What the teacher adds to the samples, against the model itself and the strategies drawn by hand."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from logs_fixture import write_logs
from samples_fixture import build, random_teacher, rows_of, teach_here

from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids
from prerank.core.outputs import read_manifest
from prerank.models.checkpoint import load_model
from prerank.models.options import Arm, Distill
from prerank.samples.batches import scoring_batch
from prerank.samples.draw import CODES
from prerank.samples.files import sample_files
from prerank.training.preflight import check
from workflows.teach import warn_of


@pytest.mark.slow
def test_scores_and_representations_are_the_models(samples, taught, tmp_path):
    model = load_model(random_teacher(samples, tmp_path / "teacher"), kind="teacher")
    [(path, _)] = sample_files(samples, "train")
    batch = scoring_batch(pq.read_table(path), model.schema.features)
    with torch.inference_mode():
        score, hidden = model.ranker(batch.features, batch.request_I)
    rows = rows_of(taught, "train")
    assert np.allclose([s for row in rows for s in row["teacher_score"]], score, atol=1e-6)
    assert np.allclose([v for row in rows for v in row["teacher_repr"]], hidden, atol=1e-2)  # stored as float16


def test_samples_stay_as_they_were(samples, taught):
    for split in ("train", "val"):
        before, after = rows_of(samples, split), rows_of(taught, split)
        added = {"teacher_score", "teacher_repr"} if split == "train" else {"teacher_score"}
        assert set(after[0]) - set(before[0]) == added
        kept = [{key: repr(row[key]) for key in before[0]} for row in after]
        assert kept == [{key: repr(row[key]) for key in row} for row in before]


@pytest.fixture(scope="module")
def unranked(tmp_path_factory):
    """Logs without fine-ranking positions: samples before and after a teacher."""
    folder = tmp_path_factory.mktemp("unranked")
    write_logs(folder / "logs", requests=120, positions=False)
    samples = build(folder / "logs", folder / "samples")
    return samples, teach_here(samples, random_teacher(samples, folder / "teacher"), folder / "taught")


def test_lists_without_positions_stay_whole_until_they_are_taught(unranked):
    samples, taught = unranked
    assert not read_manifest(samples, kind="samples")["positions"]
    assert {len(row["item_id"]) for row in rows_of(samples, "train")} == {24}
    assert {p for row in rows_of(samples, "train") for p in row["position"]} == {-1}
    assert read_manifest(taught, kind="samples")["positions"]


def test_positions_are_the_teachers_order_of_the_whole_list(unranked, tmp_path):
    samples, taught = unranked
    model = load_model(random_teacher(samples, tmp_path / "teacher"), kind="teacher")
    [(path, _)] = sample_files(samples, "train")
    whole = {row["request_id"]: row for row in rows_of(samples, "train")}
    batch = scoring_batch(pq.read_table(path), model.schema.features)
    with torch.inference_mode():
        score = model.ranker(batch.features, batch.request_I)[0].numpy()
    of_item, at = {}, 0
    for request, row in whole.items():
        order = np.argsort(-score[at : at + 24], kind="stable")
        of_item[request] = {row["item_id"][i]: position for position, i in enumerate(order)}
        at += 24
    for row in rows_of(taught, "train"):
        for item, position in zip(row["item_id"], row["position"], strict=True):
            assert of_item[row["request_id"]][item] == position


def test_strategies_are_drawn_after_teaching(unranked):
    pairs = read_manifest(unranked[1], kind="samples")["counts"]["pairs"]
    assert set(pairs) == {"exposed", "low_rank_negatives", "rank_pairs", "bin_pairs"} and min(pairs.values()) > 0
    for row in rows_of(unranked[1], "train"):
        hashes = [int(hash_ids(_array(item))[0]) for item in row["item_id"]]
        assert hashes == sorted(hashes)
        for hi, lo, code in zip(row["pair_hi"], row["pair_lo"], row["pair_strategy"], strict=True):
            if code == 4:
                assert row["position"][hi] < row["position"][lo]
            if code == 8:
                assert row["bin"][hi] < row["bin"][lo]


def test_what_needs_positions_waits_for_the_teacher(unranked):
    """Without the error the student learns from the exposed pairs alone, or from one bin, in silence."""
    samples, taught = unranked
    student = Arm("student", ("price",), (8,), strategies=tuple(CODES))
    contrast = replace(student, strategies=("exposed",), distill=Distill(contrast=0.5))
    for arm, is_taught, asking in (
        (student, True, "--strategy low_rank_negatives, --strategy rank_pairs, --strategy bin_pairs;"),
        (contrast, False, "--distill.positives bin;"),
    ):
        with pytest.raises(InputError, match=rf"without fine_position, .* needs for {asking} run workflows.teach"):
            check([arm], samples, taught=is_taught)
        check([arm], taught)
    teacher = Arm("teacher", ("price",), (8,), hard="listwise", unexposed_ratio=2.0, select_by="auc")
    check([teacher, replace(student, strategies=("exposed",))], samples)
    check([replace(contrast, distill=Distill(contrast=0.5, positives="item"))], samples, taught=False)


def _array(item):

    return pa.array([item])


def test_a_teacher_that_has_not_proved_itself_is_warned_of(samples, tmp_path, capsys):
    folder = random_teacher(samples, tmp_path / "teacher")
    warn_of(folder)
    assert capsys.readouterr().err == ""
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"hit_rate": 0.4', '"hit_rate": 0.6'))
    warn_of(folder)
    assert "WARNING" in capsys.readouterr().err
