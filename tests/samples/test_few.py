"""The draw held against the logs: what many exposures a request, or none left unexposed, make of it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from few_fixture import write_few
from samples_fixture import build, rows_of

from prerank.core.errors import InputError
from prerank.core.hashing import hash_ids, keyed_uniform
from prerank.core.outputs import read_manifest
from prerank.logs.folder import open_logs
from prerank.samples import fitting
from prerank.samples.draw import UNIFORM, DrawConfig
from prerank.samples.fitting import check_built, drawn_by, fitted, mean_exposures, said_of_draw


def uniform_of(samples):
    """Of each training request: exposures, unexposed items drawn uniformly."""
    drawn = {}
    for row in rows_of(samples, "train"):
        flags = [bits & UNIFORM > 0 for bits in row["drawn"]]
        assert not any(exposed and flag for exposed, flag in zip(row["exposed"], flags, strict=True))
        drawn[row["request_id"]] = sum(row["exposed"]), sum(flags)
    return drawn


@pytest.mark.parametrize(("shown", "drawn"), [(2, 30), (10, 30), (11, 33), (60, 100)])
def test_many_exposures_get_as_many_times_negatives(tmp_path, shown, drawn):
    """60 exposures ask for 180, of which lists of 160 items hold 100."""
    write_few(tmp_path / "logs", shown=shown, items=160)
    samples = build(tmp_path / "logs", tmp_path / "samples")
    assert set(uniform_of(samples).values()) == {(shown, drawn)}
    manifest = read_manifest(samples, kind="samples")
    assert manifest["draw"]["uniform_ratio"] == (3.0 if shown > 10 else 0.0)
    clicked = sum(any(row["clicked"]) for row in rows_of(samples, "train"))
    assert manifest["counts"]["requests_with_click"] == clicked
    short = {"requests": clicked, "rows": clicked * 80} if shown == 60 else None
    assert manifest["counts"]["noted"].get("fewer_unexposed_than_asked") == short


def test_a_few_long_requests_among_short_ones_change_nothing(tmp_path):
    """As on KuaiRand, where 3 in 1,000 users see more than ten videos a day: the draw is that of no ratio at all."""
    write_few(tmp_path / "logs", shown=2, items=160, long={0: 60, 7: 40})
    options = {"draw": DrawConfig(uniform_ratio=0.0)}
    ours, without = build(tmp_path / "logs", tmp_path / "a"), build(tmp_path / "logs", tmp_path / "b", **options)
    assert {path.name for path in (ours / "train").iterdir()} == {path.name for path in (without / "train").iterdir()}
    for path in (ours / "train").iterdir():
        assert pq.read_table(path).equals(pq.read_table(without / "train" / path.name))
    assert set(uniform_of(ours).values()) == {(2, 30), (60, 30), (40, 30)}


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_mean_of_the_exposures_is_that_of_the_sampled_requests(tmp_path, monkeypatch, shuffled):
    write_few(tmp_path, shown=3, items=40, long={n: n % 9 for n in range(60)}, shuffled=shuffled)
    shown = pa.concat_tables(pq.read_table(path) for path in (tmp_path / "impressions").iterdir())["request_id"]
    ids, times = np.unique(shown.to_numpy(zero_copy_only=False), return_counts=True)
    logs = open_logs(tmp_path)
    assert mean_exposures(logs) == pytest.approx(times.mean())
    monkeypatch.setattr(fitting, "SAMPLED", 10)
    lowest = np.argsort(keyed_uniform(0, "exposures", hash_ids(pa.array(ids))))[:10]
    assert mean_exposures(logs) == pytest.approx(times[lowest].mean())


def test_the_ratio_is_one_of_the_whole_logs(tmp_path):
    write_few(tmp_path, shown=11, items=40)
    logs = open_logs(tmp_path)
    assert fitted(DrawConfig(), logs) == DrawConfig()
    assert fitted(DrawConfig(uniform_items=33), logs) == DrawConfig(uniform_items=33, uniform_ratio=0.0)
    with pytest.raises(InputError, match=r"draw\.uniform_ratio: expected 0 or more, got -1"):
        DrawConfig(uniform_ratio=-1).check()


def test_samples_of_earlier_versions_are_drawn_again_as_they_were():
    """Their manifests have no ratio."""
    was = json.loads('{"tail_negatives": 10, "uniform_items": 30, "bins": 10}')
    assert drawn_by(was) == DrawConfig(uniform_ratio=0.0)


def test_where_all_is_shown_there_are_no_negatives_and_no_error(tmp_path, capsys):
    write_few(tmp_path / "logs", shown=40, items=40, positions=True)
    samples = build(tmp_path / "logs", tmp_path / "samples")
    counts, said = read_manifest(samples, kind="samples")["counts"], capsys.readouterr().out.replace("\n", " ")
    assert set(uniform_of(samples).values()) == {(40, 0)}
    assert counts["pairs"]["low_rank_negatives"] == 0 < counts["pairs"]["exposed"]
    assert "note: low_rank_negatives: no item of a fine list's tail was left unexposed: it adds no pairs" in said
    assert "requests with a click have fewer unexposed items than the 3 times their exposures" in said
    with pytest.raises(InputError, match="strategy 'low_rank_negatives' built no pair"):
        build(tmp_path / "logs", tmp_path / "alone", strategy="low_rank_negatives")
    no_clicks = counts | {"requests_with_click": 0}
    with pytest.raises(InputError, match="strategy 'low_rank_negatives' built no pair"):
        check_built(no_clicks, ("low_rank_negatives", "rank_pairs"), positions=True)


def test_nothing_is_said_where_nothing_is_met(tmp_path, capsys):
    write_few(tmp_path / "logs", shown=5, items=60)
    build(tmp_path / "logs", tmp_path / "samples")
    assert "note:" not in capsys.readouterr().out
    assert said_of_draw(DrawConfig(), {}, ("exposed",)) == []
