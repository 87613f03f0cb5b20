"""What is found out before the first task, from footers, schema and manifests, in one line that names the fault."""

import json
import re
import shutil

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs_fixture import write_logs
from samples_fixture import here, random_teacher

from prerank.core.errors import InputError
from prerank.evaluation import evaluate as module
from prerank.evaluation.evaluate import evaluate
from prerank.evaluation.plan import plan
from prerank.evaluation.preflight import (
    check_clicks,
    check_lists,
    check_truth_of,
    one_score,
    space_of,
)
from prerank.evaluation.summed import Facts
from prerank.evaluation.truth import check_truth, truth_of
from prerank.logs.folder import open_logs
from prerank.reports.cautions import warn_of
from workflows import evaluate as workflow
from workflows.teach import warn_of_ties

TEST_FROM = np.datetime64("2024-03-04", "us")


@pytest.fixture
def truthful(logs, tmp_path):
    """A copy of the logs, with a truth of every candidate."""
    shutil.copytree(logs, tmp_path / "logs")
    table = pq.read_table(logs / "candidates", columns=["request_id", "item_id"])
    rng = np.random.default_rng(0)
    table = table.append_column("click_probability", pa.array(rng.random(len(table))))
    put(tmp_path / "logs", table)
    return tmp_path / "logs", table


def put(logs, table, name="0.parquet"):
    path = logs / "truth" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=500)


def replaced(table, name, column):
    return table.set_column(table.column_names.index(name), name, column)


def wanted(logs):
    """Request rows of some candidates, and the truth of them as Polars has it."""
    rows = pl.read_parquet(logs / "candidates/*.parquet", columns=["request_id", "item_id"])
    some = rows.filter(pl.col("request_id") % 3 == 0).sample(fraction=1, shuffle=True, seed=0)
    lists = some.group_by("request_id", maintain_order=True).agg("item_id")
    known = pl.read_parquet(logs / "truth/**/*.parquet", hive_partitioning=False)
    expected = some.join(known, ["request_id", "item_id"])
    by_key = {row[:2]: row[2] for row in expected.select("request_id", "item_id", "click_probability").iter_rows()}
    keys = [(r, i) for r, items in lists.iter_rows() for i in items]
    return lists.to_arrow().cast(pa.schema([("request_id", pa.int64()), ("item_id", pa.list_(pa.string()))])), [
        by_key[key] for key in keys
    ]


@pytest.mark.parametrize(
    "encode",
    [
        lambda t: replaced(t, "request_id", t["request_id"].cast(pa.int32())),
        lambda t: replaced(t, "request_id", t["request_id"].cast(pa.uint64())),
        lambda t: replaced(t, "request_id", t["request_id"].dictionary_encode()),
        lambda t: replaced(t, "item_id", t["item_id"].cast(pa.large_string())),
        lambda t: t.select(["click_probability", "item_id", "request_id"]),
        lambda t: t.append_column("note", pa.nulls(len(t))),
        lambda t: t.take(pa.array(np.random.default_rng(0).permutation(len(t)))),
        lambda t: pa.concat_tables([t, t.slice(100, 50)]),  # logged at least once
    ],
    ids=["int32", "uint64", "dictionary", "large", "order", "another", "shuffled", "twice"],
)
def test_the_truth_is_read_in_any_encoding(truthful, encode):
    logs, table = truthful
    put(logs, encode(table))
    check_truth(open_logs(logs))
    lists, expected = wanted(logs)
    assert truth_of(lists, logs / "truth").tolist() == expected


def test_the_truth_is_in_many_files_and_folders(truthful):
    logs, table = truthful
    shutil.rmtree(logs / "truth")
    for n in range(5):
        put(
            logs, table.slice(n * len(table) // 5, (n + 1) * len(table) // 5 - n * len(table) // 5), f"dt={n}/p.parquet"
        )
    put(logs, table.slice(0, 0), "empty.parquet")
    for hidden in ("_SUCCESS", "_temporary/0.parquet", ".0.parquet.crc"):
        (logs / "truth" / hidden).parent.mkdir(exist_ok=True)
        (logs / "truth" / hidden).write_text("")
    check_truth(open_logs(logs))
    lists, expected = wanted(logs)
    assert truth_of(lists, logs / "truth").tolist() == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.rename_columns(["request_id", "item_id", "p"]),
            r"9\.parquet: column 'click_probability' is missing; .* found item_id, p, request_id",
        ),
        (lambda t: t.rename_columns(["query", "item_id", "click_probability"]), "column 'request_id' is missing"),
        (lambda t: replaced(t, "item_id", pa.array(np.arange(len(t)))), r"'item_id' has type int64, expected string"),
        (
            lambda t: replaced(t, "request_id", t["request_id"].cast(pa.string())),
            "'request_id' has type string, expected int64, as in candidates/",
        ),
        (
            lambda t: replaced(t, "click_probability", t["click_probability"].cast(pa.string())),
            "'click_probability' has type string, expected floating-point",
        ),
    ],
)
def test_a_truth_that_does_not_fit_is_found_in_its_footers(truthful, change, said):
    logs, table = truthful
    put(logs, change(table), "later/9.parquet")
    for look in (lambda: check_truth(open_logs(logs)), lambda: space_of(open_logs(logs), TEST_FROM)):
        with pytest.raises(InputError, match=said) as error:
            look()
        assert "\n" not in str(error.value)
    assert space_of(open_logs(logs), TEST_FROM, logged=True) == "fine_lists"  # has no need of it


def test_a_truth_without_files_and_one_that_is_no_parquet(truthful):
    logs, _ = truthful
    (logs / "truth/0.parquet").write_text("nothing of the kind")
    with pytest.raises(InputError, match=r"truth/0\.parquet: cannot be read as a Parquet file"):
        check_truth(open_logs(logs))
    (logs / "truth/0.parquet").unlink()
    with pytest.raises(InputError, match=r"truth: no \*\.parquet files"):
        check_truth(open_logs(logs))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (lambda p: p.fill(np.nan), "click_probability is nan for one of 11,520 candidates"),
        (lambda p: p.__setitem__(slice(None, None, 3), 1.5), "is 1.5 for one of 3,840 candidates .* expected 0 to 1"),
        (lambda p: p.__setitem__(7, -0.1), "is -0.1 for one of 1 candidates"),
    ],
)
def test_what_is_no_probability(truthful, values, said):
    logs, table = truthful
    p = table["click_probability"].to_numpy().copy()
    values(p)
    put(logs, replaced(table, "click_probability", pa.array(p)))
    lists = pq.read_table(logs / "candidates", columns=["request_id", "item_id"]).to_pandas()
    lists = lists.groupby("request_id")["item_id"].agg(list).reset_index()
    with pytest.raises(InputError, match=said):
        truth_of(pa.Table.from_pandas(lists, preserve_index=False), logs / "truth")


def test_what_the_truth_lacks_and_what_it_says_twice(truthful):
    logs, table = truthful
    lists, _ = wanted(logs)
    other = replaced(table, "click_probability", pa.array(np.full(len(table), 0.123)))
    put(logs, other.slice(0, 200), "other.parquet")
    with pytest.raises(InputError, match="candidates have two different click_probability"):
        truth_of(lists, logs / "truth")
    (logs / "truth/other.parquet").unlink()
    put(logs, table.slice(200))
    with pytest.raises(InputError, match=r"\d+ of [\d,]+ candidates of requests .* have no click_probability"):
        truth_of(lists, logs / "truth")
    put(logs, replaced(table, "click_probability", pa.nulls(len(table), pa.float64())))
    with pytest.raises(InputError, match="have no click_probability"):
        truth_of(lists, logs / "truth")


def test_a_truth_without_some_candidates_of_the_test_days(truthful):
    """Known beforehand; what it says of other days is of no matter."""
    logs, table = truthful
    check_truth_of(open_logs(logs), TEST_FROM)
    late = pl.read_parquet(logs / "candidates/*.parquet").filter(pl.col("ts") >= TEST_FROM.item())
    known = pl.from_arrow(table).join(late.select("request_id", "item_id"), ["request_id", "item_id"], how="semi")
    put(logs, known.to_arrow())
    check_truth_of(open_logs(logs), TEST_FROM)
    put(logs, known[5:].to_arrow())
    with pytest.raises(InputError, match=r"truth: 5 of 2,880 candidates of requests .* have no click_probability"):
        check_truth_of(open_logs(logs), TEST_FROM)
    shutil.rmtree(logs / "truth")
    check_truth_of(open_logs(logs), TEST_FROM)


def test_what_is_evaluated_on(logs, tmp_path):
    """Candidates of the test days, else their fine lists, else nothing."""
    found = open_logs(logs)
    assert space_of(found, TEST_FROM) == "candidates" and space_of(found, TEST_FROM, logged=True) == "fine_lists"
    shutil.copytree(logs, tmp_path / "logs")
    table = pl.read_parquet(logs / "candidates/*.parquet")
    shutil.rmtree(tmp_path / "logs/candidates")
    (tmp_path / "logs/candidates").mkdir()
    table.filter(pl.col("ts") < TEST_FROM.item()).write_parquet(tmp_path / "logs/candidates/early.parquet")
    assert space_of(open_logs(tmp_path / "logs"), TEST_FROM) == "fine_lists"
    for logged in (False, True):
        with pytest.raises(InputError, match=r"no request since 2024-03-05.*2024-03-01 to 2024-03-04"):
            space_of(found, np.datetime64("2024-03-05", "us"), logged=logged)


@pytest.mark.parametrize("candidates", [True, False])
def test_k_above_every_list(candidates, tmp_path, monkeypatch):
    write_logs(tmp_path / "logs", candidates=candidates, shuffled=True)
    found = open_logs(tmp_path / "logs")
    longest, days = 48 if candidates else 24, (TEST_FROM - np.timedelta64(1, "D"), TEST_FROM)
    check_lists(found, *days, k=longest - 1, m=longest - 1)
    for k in (longest, 1000):
        with pytest.raises(InputError, match=f"have {longest} candidates at most.*--k {k}; lower --k"):
            check_lists(found, *days, k=k, m=None)
    with pytest.raises(InputError, match=f"are the teacher's top at --m {longest}"):
        check_lists(found, *days, k=3, m=longest)
    with pytest.raises(InputError, match="of the test days have 24 candidates at most"):
        check_lists(found, TEST_FROM, None, k=24, m=None, days="test", tables=("fine_lists",))
    monkeypatch.setattr("prerank.evaluation.preflight.MOST_COUNTED", 100)
    check_lists(found, *days, k=1000, m=None)  # too many rows to count beforehand


def test_a_validation_without_a_click(samples, tmp_path):
    check_clicks(samples)
    shutil.copytree(samples, tmp_path / "samples")
    for path in (tmp_path / "samples/val").glob("*.parquet"):
        table = pl.read_parquet(path).with_columns(pl.col("clicked").list.eval(pl.element() & False))
        table.write_parquet(path)
    with pytest.raises(InputError, match=r"no validation request has a click.*split\.val_days"):
        check_clicks(tmp_path / "samples")


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=6))
def test_requests_with_one_score(lists):
    flat = np.array([value for one in lists for value in one], np.float32)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    several = [one for one in lists if len(one) > 1]
    assert one_score(flat, offsets) == (sum(len(set(one)) == 1 for one in several), len(several))


def test_scores_that_only_rounding_tells_apart_are_one():
    """A network gives rows that are alike scores that differ in their last bits, by their place in the batch."""
    score = np.float32(3.7)
    rounded = np.array([score, np.nextafter(score, np.float32(9)), score, -2, -1, 0, 0], np.float32)
    offsets = np.array([0, 3, 5, 7])
    assert one_score(rounded, offsets) == (1, 3) and one_score(rounded, offsets, within=1e-6) == (2, 3)
    assert one_score(np.array([1e-9, 2e-9, 0, 1e-30]), np.array([0, 2, 4]), within=1e-6) == (0, 2)
    assert one_score(np.array([np.inf, np.inf, -np.inf, 0]), np.array([0, 2, 4]), within=1e-6) == (1, 2)


@pytest.mark.parametrize(("share", "said"), [(0.0, ""), (0.4, ""), (0.6, "WARNING"), (1.0, None)])
def test_a_teacher_that_tells_no_item_from_another(taught, share, said, tmp_path, capsys):
    shutil.copytree(taught, tmp_path / "taught")
    rng = np.random.default_rng(0)
    for path in (tmp_path / "taught/val").glob("*.parquet"):
        table = pl.read_parquet(path)
        same = pl.Series(rng.permutation(len(table)) < share * len(table))
        alike = pl.col("teacher_score").list.eval(pl.element() * 0 + 1)
        table.with_columns(pl.when(same).then(alike).otherwise("teacher_score").alias("teacher_score")).write_parquet(
            path
        )
    if said is None:
        with pytest.raises(InputError, match=r"gives all items of (\d+) of \1 validation requests one score"):
            warn_of_ties(tmp_path / "taught", tmp_path / "teacher")
        return
    warn_of_ties(tmp_path / "taught", tmp_path / "teacher")
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == bool(said) and printed.startswith(said)


@pytest.fixture
def models(samples, tmp_path):
    return (
        random_teacher(samples, tmp_path / "teacher"),
        random_teacher(samples, tmp_path / "student", kind="student", features=("price", "match"), seed=1),
    )


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(module, "whole_requests", here)
    monkeypatch.setattr(module, "executed", lambda parts: parts)


def evaluated(logs, models, scores, monkeypatch, **options):
    """With made-up scores: a function of how many items there are and a generator, by the kind of model."""
    rng = np.random.default_rng(0)

    def made_up(table, model):
        return np.asarray(scores[model.manifest["kind"]](len(table["item_id"].combine_chunks().flatten()), rng), float)

    monkeypatch.setattr(module, "scores_of", made_up)
    return evaluate(plan(open_logs(logs), str(models[0]), {"student": models[1]}, **{"k": 12, **options}))


def same(n, rng):
    return np.zeros(n)


def different(n, rng):
    return rng.random(n)


def test_a_teacher_that_gives_one_score_is_refused(in_process, logs, models, monkeypatch):
    with pytest.raises(InputError, match=r"teacher: gives all items of each of the 60 requests.*no\s+student"):
        evaluated(logs, models, {"teacher": same, "student": different}, monkeypatch)


def test_a_score_that_is_none_is_named(in_process, logs, models, monkeypatch):
    def broken(n, rng):
        return np.where(np.arange(n) == 50, np.nan, rng.random(n))

    with pytest.raises(InputError, match=r"student: the score of an item of request \d+ is not a number"):
        evaluated(logs, models, {"teacher": different, "student": broken}, monkeypatch)


def test_ties_are_said_in_a_line_each(in_process, logs, models, monkeypatch, capsys):
    def few(n, rng):
        return rng.integers(0, 3, n)

    clean = evaluated(logs, models, {"teacher": different, "student": different}, monkeypatch).facts
    assert clean["ties"] == {"teachers_top": 0, "one_score": {}}
    warn_of(clean)
    few_requests = (
        "note: 60 requests of the test: a share over them is known to ±13 points; a difference, to its own interval\n"
    )
    assert capsys.readouterr() == (few_requests, "")
    found = evaluated(logs, models, {"teacher": few, "student": same}, monkeypatch)
    warn_of(found.facts)
    out, err = capsys.readouterr()
    lines = out.removeprefix(few_requests).splitlines()
    assert not err and len(lines) == 2
    assert re.match(r"note: in 5\d of 60 requests ties decide the teacher's top 12: recall there", lines[0])
    assert lines[1].startswith("note: student gives all items of 60 of 60 requests one score")
    json.dumps(found.facts)  # as results.json has them


def test_m_above_every_list_is_said(in_process, logs, models, monkeypatch, capsys):
    scores = {"teacher": different, "student": different}
    found = evaluated(logs, models, scores, monkeypatch, m=48)
    assert found.rows["student"]["recall_at_12"] == 12 / 48
    warn_of(found.facts)
    assert "60 of 60 requests have at most 48 candidates, all the teacher's top" in capsys.readouterr().out
    assert "at_most_m" not in evaluated(logs, models, scores, monkeypatch, m=47).facts["noted"]


def test_a_teacher_of_one_score_in_most_requests_is_a_warning(capsys):
    facts: Facts = {
        "space": "candidates", "test_from": "2024-03-04", "requests": 1000, "candidates": 48.0, "requests_at_most_k": 0,
        "k": 12, "m": 12, "has_truth": False, "dropped": {}, "noted": {},
        "ties": {"teachers_top": 700, "one_score": {"teacher": 600, "student": 500}},
    }  # fmt: skip
    warn_of(facts)
    out, err = capsys.readouterr()
    assert err == (
        "WARNING: the teacher gives all items of 600 of 1,000 requests one score: "
        "no student's recall is above another's there\n"
    )
    assert len(out.splitlines()) == 1 and "ties decide" in out  # half of them are not most
    del facts["ties"]
    warn_of(facts)  # results of earlier versions
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("content", ["", "no JSON", "[1]", '{"key": "another"}', None])
def test_results_that_are_something_else_are_found_before_scoring(logs, models, content, tmp_path, monkeypatch):
    out = tmp_path / "results.json"
    out.mkdir() if content is None else out.write_text(content)
    monkeypatch.setattr(workflow, "start_ray", lambda: pytest.fail("nothing is to be started"))
    with pytest.raises(InputError, match=r"results\.json: .*name another --out") as error:
        workflow.main(workflow.Evaluate(logs, str(models[0]), models[1], out, k=12))
    assert "\n" not in str(error.value)


def test_models_of_other_days_are_found_before_scoring(models, tmp_path):
    write_logs(tmp_path / "logs", requests=30, days=2)
    with pytest.raises(InputError, match="no request since 2024-03-04"):
        plan(open_logs(tmp_path / "logs"), str(models[0]), {"student": models[1]}, k=12)
