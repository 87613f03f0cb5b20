"""What is held against the student's scores: fewer bits, trees and their recall, each against an answer of its own."""

from itertools import islice

import numpy as np
import pytest
from samples_fixture import random_teacher

from prerank.benchmarks import boosted, quantised, scoring
from prerank.samples.files import files_of
from prerank.samples.reader import sequential
from prerank.serving.parity import real_cases
from prerank.serving.served import graph_of


@pytest.fixture
def student(samples, tmp_path):
    folder = random_teacher(samples, tmp_path / "student", kind="student", features=("price", "brand", "match"))
    return scoring.Scorer.of(folder, "student")


def test_fewer_bits_change_little(student, taught):
    ranker = student.model.ranker
    graph = graph_of(ranker, student.features)
    feeds = [feed for feed, _ in islice(real_cases(ranker, student.features, taught), 4)]
    assert quantised.changed(graph, graph, feeds) == quantised.Changed(0.0, 1.0)
    before = graph.SerializeToString()
    for name, other in quantised.graphs_of(graph).items():
        changed = quantised.changed(graph, other, feeds)
        assert 0 < changed.worst < quantised.WORST[name] and changed.kept > 0.8
    assert graph.SerializeToString() == before


def test_recall_is_that_of_sorted_scores(student, taught):
    k, found, names = 5, [], tuple(feature.name for feature in student.features)
    for table in sequential(files_of(taught, "val"), (*names, "item_id", "teacher_score")):
        score_N, begin = student.score(table), 0
        for teacher in table["teacher_score"].to_pylist():
            score, begin = score_N[begin : begin + len(teacher)], begin + len(teacher)
            if len(teacher) > k:
                best, kept = (set(np.argsort(-np.array(of))[:k].tolist()) for of in (teacher, score))
                found.append(len(best & kept) / k)
    recall = boosted.recall_of(student.score, list(student.features), taught, k)
    assert recall == pytest.approx(np.mean(found), abs=0.02)  # but for ties
    assert boosted.recall_of(student.score, list(student.features), taught, 10**6) is None  # all are kept


@pytest.mark.slow
def test_compiled_trees_say_what_lightgbm_says(student, taught, tmp_path):
    if boosted.COMPILED.lacking:
        pytest.skip(boosted.COMPILED.lacking)
    from prerank.benchmarks.peers.compiled_trees import compiled

    trees, rows_NF = boosted.trees_of(student.numbers, taught)
    said = np.asarray(compiled(trees, rows_NF, tmp_path)(rows_NF.astype(np.float64))).reshape(-1)
    np.testing.assert_allclose(said, np.asarray(trees.predict(rows_NF)), rtol=1e-5, atol=1e-6)
