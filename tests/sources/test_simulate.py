import itertools
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prerank.core.errors import InputError
from prerank.logs.folder import open_logs
from prerank.logs.schema import RESERVED, parse_schema
from prerank.sources.simulator.cascade import SHOWN, Simulation, chunks, simulate_chunk, write_chunk
from prerank.sources.simulator.features import FETCH
from prerank.sources.simulator.truth import examination
from prerank.sources.simulator.world import build_world

TINY = Simulation(requests=240, candidates=60, fine_list=30, items=900, users=80, days=3, eval_requests=30, seed=5)
KEYS = ["request_id", "item_id"]


@pytest.fixture(scope="module")
def made():
    return {chunk: simulate_chunk(TINY, chunk) for chunk in chunks(TINY)}


@pytest.fixture(scope="module")
def whole(made):
    return [tables for chunk, tables in made.items() if chunk.whole]


def same(left: pa.Table, right: pa.Table) -> bool:
    """To the last bit; a missing value equals a missing value."""
    assert left.schema.names == right.schema.names
    pd.testing.assert_frame_equal(left.to_pandas(), right.to_pandas(), check_exact=True)
    return True


def flat(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    return (array.flatten() if array.type.num_fields else array).to_numpy(zero_copy_only=False)


def test_chunks_tile_the_requests_of_each_day():
    cut = list(chunks(Simulation(requests=1_903, days=3, eval_requests=270)))
    assert [sum(c.stop - c.first for c in cut if c.day == day) for day in range(3)] == [635, 634, 634]
    assert [(c.first, c.stop) for c in cut if c.day == 2] == [(0, 250), (250, 270), (270, 520), (520, 634)]
    assert [sum(c.stop - c.first for c in cut if c.whole and c.day == day) for day in range(3)] == [0, 270, 270]


@pytest.mark.slow
def test_a_chunk_does_not_depend_on_the_chunks_before_it(made):
    build_world.cache_clear()
    for chunk in reversed(made):
        again = simulate_chunk(TINY, chunk)
        assert again.keys() == made[chunk].keys()
        assert all(same(again[name], made[chunk][name]) for name in again)


@pytest.mark.slow
def test_another_kind_of_cpu_shows_the_same_items_and_sees_the_same_clicks(made):
    """Played by numpy without its vector instructions, by which partitions leave another order."""
    code = f"""
import sys
import pyarrow as pa
from prerank.sources.simulator.cascade import Simulation, chunks, simulate_chunk
tiny = {TINY!r}
shown = pa.concat_tables(simulate_chunk(tiny, chunk)["impressions"] for chunk in chunks(tiny))
pa.ipc.new_stream(sys.stdout.buffer, shown.schema).write_table(shown)
"""
    found = np._core._multiarray_umath.__cpu_dispatch__
    env = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(found)}
    ran = subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, check=True)
    assert same(pa.ipc.open_stream(ran.stdout).read_all(), pa.concat_tables(of["impressions"] for of in made.values()))


def test_another_seed_gives_other_logs(made):
    chunk = next(iter(made))
    other = simulate_chunk(replace(TINY, seed=6), chunk)
    assert other["impressions"]["item_id"] != made[chunk]["impressions"]["item_id"]


def test_schema_is_valid_and_has_every_kind():
    schema = TINY.schema
    assert parse_schema(json.loads(json.dumps(schema.to_json())), "schema.json") == schema
    assert len(schema.features) >= 40 and not RESERVED & set(schema.names)
    assert {f.kind for f in schema.features} == {"dense", "id", "ids", "embedding"}
    assert any(f.kind == "dense" and f.size > 1 for f in schema.features)
    assert {f.side for f in schema.features} == {"user", "query", "item", "context", "cross"}
    assert any(f.teacher_only for f in schema.features)
    assert not any(schema.by_name[name].teacher_only for name in schema.hand_picked)


def test_hand_picked_features_cost_a_fraction_of_all():
    def cost(features):
        groups = [(FETCH[s]["per_feature_us"], [f.fetch_us for f in features if f.source == s]) for s in FETCH]
        return max(max(us) + each * len(us) for each, us in groups)

    picked = TINY.schema.select(TINY.schema.hand_picked, where="")
    assert 0.15 <= cost(picked) / cost(TINY.schema.features) <= 0.25


def test_feature_columns_are_what_the_schema_says(whole):
    rows = pa.concat_tables(tables["candidates"] for tables in whole)
    assert rows.column_names == ["request_id", "item_id", "ts", *TINY.schema.names]
    missing = {}
    for feature in TINY.schema.features:
        column, values = rows[feature.name], flat(rows[feature.name])
        if feature.kind in ("id", "ids"):
            assert 0 <= values.min() < values.max() < feature.size, feature.name
        elif feature.size > 1:
            assert column.type.list_size == feature.size, feature.name
        elif feature.name != "weather":
            missing[feature.name] = np.isnan(values.astype(float)).mean()
            assert np.nanstd(values) > 0, feature.name
    assert all(share < 0.1 for share in missing.values())
    for name in ("text_relevance", "price_gap", "query_item_ctr", "item_trend"):
        assert 0.001 < missing[name] < 0.03


@pytest.mark.slow
def test_features_of_a_request_have_one_value_a_request(whole):
    names = [f.name for f in TINY.schema.features if f.of_request]
    for tables in whole:
        rows = tables["candidates"].to_pandas()
        for name in names:
            assert (rows[name].map(str).groupby(rows.request_id).nunique() == 1).all(), name


def test_fine_positions_are_the_order_of_the_scores_and_the_first_ten_are_shown(made):
    for tables in made.values():
        fine, shown = (tables[name].to_pandas() for name in ("fine_lists", "impressions"))
        positions = fine.fine_position.to_numpy().reshape(-1, TINY.fine_list)
        assert (np.sort(positions, 1) == np.arange(TINY.fine_list)).all()
        by_score = fine.sort_values(["request_id", "fine_score"], ascending=[True, False])
        by_position = fine.sort_values(["request_id", "fine_position"])
        assert (by_score.item_id.to_numpy() == by_position.item_id.to_numpy()).all()
        first = by_position[by_position.fine_position < SHOWN]
        assert (first[[*KEYS, "fine_position"]].to_numpy() == shown[[*KEYS, "shown_position"]].to_numpy()).all()
        assert shown.clicked.any() and shown.converted.any() and not (shown.converted & ~shown.clicked).any()


def test_candidates_hold_the_fine_list_with_the_same_features(whole):
    for tables in whole:
        candidates, fine = (tables[name].to_pandas().set_index(KEYS) for name in ("candidates", "fine_lists"))
        assert candidates.index.is_unique and fine.index.is_unique and len(candidates) == 2 * len(fine)
        assert (candidates.groupby("request_id").size() == TINY.candidates).all()
        same_rows = fine[candidates.columns]
        pd.testing.assert_frame_equal(candidates.loc[fine.index], same_rows, check_exact=True)


def test_the_truth_is_of_every_candidate_and_nowhere_else(made):
    for tables in made.values():
        assert not any("click_probability" in tables[name].column_names for name in tables if name != "truth")
        if "truth" in tables:
            probability = tables["truth"]["click_probability"].to_numpy()
            assert tables["truth"].select(KEYS) == tables["candidates"].select(KEYS)
            assert ((probability > 0) & (probability < 1)).all()


@pytest.mark.slow
def test_clicks_are_truth_times_examination():
    sizes = dict(requests=3_000, candidates=60, fine_list=30, items=900, users=80, days=3, eval_requests=1_000)
    tables = [simulate_chunk(Simulation(**sizes), c) for c in chunks(Simulation(**sizes)) if c.whole]
    truth, shown = (pd.concat(t[name].to_pandas() for t in tables) for name in ("truth", "impressions"))
    shown = shown.merge(truth, on=KEYS, validate="1:1")
    shown["p"] = shown.click_probability * examination(shown.shown_position)
    shown["variance"] = shown.p * (1 - shown.p)
    by_position = shown.groupby("shown_position")[["clicked", "p", "variance"]].sum()
    assert (by_position.clicked.to_numpy() > 0).all() and len(by_position) == SHOWN
    assert ((by_position.clicked - by_position.p).abs() < 4 * by_position.variance**0.5).all()
    top, middle, low = (by_position.clicked[slice].mean() for slice in (range(0, 3), range(3, 6), range(7, 10)))
    assert top > 1.5 * middle > 1.5 * low


def test_the_world_drifts_from_day_to_day():
    world = build_world(items=900, users=80, days=6, seed=0)
    likeness = [np.corrcoef(world.items.popularity[0], today)[0, 1] for today in world.items.popularity]
    assert likeness[0] == pytest.approx(1) and likeness[5] < likeness[1] < 0.99
    assert (np.diff(world.drift, axis=0) != 0).all()
    assert ((world.items.launch_day > 0).mean() > 0.01) and (world.items.launch_day < 6).all()


def test_no_item_is_recalled_before_its_launch(made):
    launch = TINY.world.items.launch_day
    for chunk, tables in made.items():
        assert (launch[tables["fine_lists"]["item_id"].to_numpy()] <= chunk.day).all()


def test_exposures_are_a_biased_part_of_the_candidates(whole):
    for tables in whole:
        candidates, fine = (tables[name].to_pandas() for name in ("candidates", "fine_lists"))
        shown = fine[fine.fine_position < SHOWN]
        assert shown.distance.mean() < candidates.distance.mean()
        assert shown.semantic_relevance.mean() > 1.3 * candidates.semantic_relevance.mean()
        assert shown.distance.std() < candidates.distance.std()


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"fine_list": 9}, "--fine-list 9"),
        ({"candidates": 29}, "--candidates 29"),
        ({"items": 59}, "--items 59"),
        ({"days": 2}, "--days 2"),
        ({"requests": 2}, "--requests 2"),
        ({"eval_requests": 0}, "--eval-requests 0"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_impossible_sizes_are_refused(change, flag):
    with pytest.raises(InputError, match=f"^{flag}: expected"):
        replace(TINY, **change).check()


def test_files_hold_whole_requests_in_disjoint_ranges(tmp_path):
    for chunk in chunks(TINY):
        write_chunk(TINY, chunk, tmp_path)
    TINY.schema.save(tmp_path)
    logs = open_logs(tmp_path)
    assert logs.has_positions and logs.has_candidates
    for table in ("fine_lists", "candidates"):
        ranges = []
        for file in map(pq.ParquetFile, sorted((tmp_path / table).iterdir())):
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["request_id"])["request_id"].to_numpy()
                assert (np.diff(ids) >= 0).all()
                ranges.append((ids[0], ids[-1]))
        assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))


@pytest.mark.ray
def test_make_logs_writes_what_the_chunks_are_and_only_once(ray_cluster, tmp_path, capsys):
    from workflows.make_logs import MakeLogs, main

    config = MakeLogs(out=tmp_path / "logs", **asdict(TINY))
    result = main(config)
    assert [result[name] for name in ("requests", "fine_lists", "candidates", "truth")] == [240, 7_200, 3_600, 3_600]
    for chunk in chunks(TINY):
        for name, table in simulate_chunk(TINY, chunk).items():
            assert same(pq.read_table(tmp_path / "logs" / name / chunk.name), table)
    assert main(config) == result and "already done" in capsys.readouterr().out
    with pytest.raises(InputError, match="seed was 5, now 6"):
        main(replace(config, seed=6))


@pytest.mark.slow
def test_orders_change_no_other_digit(made):
    """People order what is cheap of what they click."""
    orders = replace(TINY, orders=True)
    assert orders.schema.labels == ("ordered",) and not TINY.schema.labels
    ordered, price, chosen = [], [], []
    for chunk, tables in made.items():
        again = simulate_chunk(orders, chunk)
        shown = again["impressions"]
        ordered.append(shown["ordered"].to_numpy(zero_copy_only=False))
        chosen.append(shown["clicked"].to_numpy(zero_copy_only=False))
        price.append(TINY.world.items.log_price[shown["item_id"].to_numpy()])
        again["impressions"] = shown.drop("ordered")
        assert all(same(again[name], tables[name]) for name in tables)
    ordered, price, chosen = map(np.concatenate, (ordered, price, chosen))
    assert ordered.any() and not (ordered & ~chosen).any()
    assert price[ordered].mean() < price[chosen & ~ordered].mean()
