"""Compared runs: intervals against those of one run at a time, fronts by hand, what is read of MLflow, the page."""

import copy
import io
import json
import re
import socket

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient
from report_fixture import Page
from rich.console import Console
from sweep_fixture import SWEPT, write_sweep

from prerank.core.errors import InputError
from prerank.evaluation.comparison import compared
from prerank.evaluation.intervals import bootstrap_interval, paired_interval
from prerank.reports.compare.figures import chosen_shares, compare_figures
from prerank.reports.compare.page import write_page_of
from prerank.reports.compare.swept import is_logarithmic, running_median, short
from prerank.reports.compare.table import terminal_table
from prerank.reports.compare.words import finding, front_sentences
from prerank.tracking.find import connect
from workflows.compare import Compare, main

SHARED = {"scheduler": "none", "metric": "recall_at_150", "runs": 2, "left_out": 0}
GROUPS = [
    {"id": "g", "name": "joint/grid", "sampler": "grid", "epochs": 100, **SHARED},
    {"id": "p", "name": "joint/pareto", "sampler": "pareto", "epochs": 98, **SHARED},
]


def row(
    name: str, group: str, latency_us: float | None, *, score: float = 0.0, form: str = "a", features=("x",)
) -> dict:
    times = {"latency_us": latency_us, "fetch_us": latency_us and 20.0, "inference_us": latency_us and latency_us - 20}
    return {
        "run_id": f"{group}{name}".encode().hex().ljust(32, "0"), "name": name, "group": group, **times,
        "sampler": group, "space": "joint", "status": "FINISHED", "stopped_early": False, "epochs": 2,
        "curve": [[1, 0.3], [2, 0.4]], "features": list(features), "widths": [64, 32],
        "params": {"distill.score": score, "form": form},
    }  # fmt: skip


def made_up(requests: int = 60) -> tuple[list[dict], dict[str, pa.Table], dict[str, np.ndarray]]:
    """Five runs of two groups, their shuffled tables of requests, and the recalls in the order of the request ids."""
    rng = np.random.default_rng(3)
    rows = [
        row("a", "g", 100.0, score=0.1), row("b", "g", 300.0, score=1.0, features=("x", "y")),
        row("a", "p", 100.0, score=3.0), row("c", "p", 200.0, score=10.0, form="b", features=("x", "y")),
        row("d", "p", None, score=0.2, form="$x_1$"),
    ]  # fmt: skip
    ids, ease = [f"r{i:03d}" for i in range(requests)], rng.normal(0, 0.1, requests)
    recalls, tables = {}, {}
    for one, kept in zip(rows, (0.4, 0.5, 0.42, 0.55, 0.45), strict=True):
        recall = kept + ease + rng.normal(0, 0.02, requests)
        hits = np.where(rng.random(requests) < 0.3, np.nan, recall)
        order = rng.permutation(requests)
        columns = {"request_id": np.array(ids)[order], "recall": recall[order], "hit_rate": hits[order]}
        tables[one["run_id"]] = pa.table(columns)
        recalls[one["run_id"]] = np.stack([recall, hits])
    return rows, tables, recalls


def results_of(rows, tables, **options) -> dict:
    results, _ = compared(copy.deepcopy(rows), tables, groups=copy.deepcopy(GROUPS), **options)
    left = {**rows[0], "run_id": "e" * 32, "name": "stopped", "stopped_early": True, "reason": "stopped early by asha"}
    facts = {"k": 150, "requests_of": "validation", "swept": ["distill.score", "form"], "mlflow": "sqlite:////x.db"}
    return {**facts, **results, "left_out": [{**left, "group": "p", "curve": [[1, 0.2]]}]}


@pytest.fixture(scope="module")
def results() -> dict:
    return results_of(*made_up()[:2])


@pytest.mark.parametrize("seed", [0, 7])
def test_every_interval_is_that_of_the_run_alone(seed):
    rows, tables, recalls = made_up()
    results = results_of(rows, tables, seed=seed)
    base = recalls[results["rows"][0]["run_id"]]
    means = [one["recall"] for one in results["rows"]]
    assert means == sorted(means, reverse=True) and results["base"] == "c (joint/pareto)" and results["requests"] == 60
    for one in results["rows"]:
        for i, metric in enumerate(("recall", "hit_rate")):
            mine = recalls[one["run_id"]][i]
            assert one[metric] == pytest.approx(np.nanmean(mine))
            assert one[f"{metric}_ci"] == pytest.approx(bootstrap_interval(mine, seed=seed))
            if one["vs_base"] is not None:
                assert one["vs_base"][metric] == pytest.approx(paired_interval(mine, base[i], seed=seed))
    assert [one["vs_base"] is None for one in results["rows"]] == [True, False, False, False, False]


def test_the_table_of_requests_holds_them_in_one_order():
    rows, tables, recalls = made_up()
    results, table = compared(rows, tables, groups=GROUPS)
    assert table["request_id"].to_pylist() == [f"r{i:03d}" for i in range(60)]
    assert table.num_columns == 1 + 2 * 5
    for one in results["rows"]:
        found = np.stack([table[f"{one['label']}.{metric}"].to_numpy() for metric in ("recall", "hit_rate")])
        assert np.array_equal(found, recalls[one["run_id"]], equal_nan=True)


def test_other_requests_are_refused_and_counted():
    rows, tables, _ = made_up()
    run_id = rows[2]["run_id"]
    other = tables[run_id].slice(2)
    tables[run_id] = pa.concat_tables([other, pa.table({**other.slice(0, 1).to_pydict(), "request_id": ["new"]})])
    with pytest.raises(InputError) as raised:
        compared(rows, tables, groups=GROUPS)
    said = str(raised.value)
    assert f"a ({rows[0]['run_id']}) and a ({run_id}) were measured on different requests" in said
    assert "2 of 60 are the first's alone, 1 of 59 the second's" in said
    for everywhere in (False, True):
        rows, tables, _ = made_up()
        for one in rows if everywhere else rows[3:4]:
            ordered = tables[one["run_id"]].sort_by("request_id")
            tables[one["run_id"]] = pa.concat_tables([ordered, ordered.slice(0, 1)])
        with pytest.raises(InputError, match=f"^{'a' if everywhere else 'c'} .*stands in its table twice"):
            compared(rows, tables, groups=GROUPS)


def test_the_base_is_the_best_or_what_is_named():
    rows, tables, _ = made_up()
    for name in ("b", "b (joint/grid)", rows[1]["run_id"]):
        results = results_of(rows, tables, base=name)
        assert results["base"] == "b (joint/grid)" and results["rows"][0]["vs_base"]["recall"][1] > 0
        assert "against b (joint/grid)" in finding(results)
    with pytest.raises(InputError, match=f"2 runs have this name.*{rows[2]['run_id']}"):
        results_of(rows, tables, base="a")
    with pytest.raises(InputError, match=r"--base z: no comparable run .* expected one such as"):
        results_of(rows, tables, base="z")


def test_labels_are_no_longer_than_they_must_be():
    rows, tables, _ = made_up()
    assert {one["label"] for one in results_of(rows[2:], tables)["rows"]} == {"a", "c", "d"}
    twice = [{**one, "name": "a"} for one in rows]
    labels = {one["label"] for one in results_of(twice, tables)["rows"]}
    assert labels == {f"a ({one['run_id']})" for one in rows}


def test_fronts_by_hand():
    """At 100, 200, 300 µs: a grid of 0.4, -, 0.5; a pareto sweep of 0.42, 0.55."""
    rows, tables, _ = made_up()
    for run_id, kept in zip(tables, (0.4, 0.5, 0.42, 0.55, 0.45), strict=True):
        tables[run_id] = tables[run_id].set_column(1, "recall", pa.array(np.full(60, kept)))
    results = results_of(rows, tables)
    assert {one["label"]: one["front"] for one in results["rows"]} == {
        "c (joint/pareto)": True, "b (joint/grid)": False, "d (joint/pareto)": False,
        "a (joint/pareto)": True, "a (joint/grid)": False,
    }  # fmt: skip
    grid, pareto = results["groups"]
    assert grid["front"] == ["a (joint/grid)", "b (joint/grid)"]
    assert results["reference"] == {"recall": pytest.approx(0.4), "latency_us": 300.0}
    box = 0.15 * 200
    assert grid["hypervolume"] == pytest.approx(0, abs=1e-9)  # at its worst each is the reference
    assert pareto["hypervolume"] == pytest.approx((0.02 * 100 + 0.15 * 100) / box)
    (pair,) = results["pairs"]
    assert (pair["a"], pair["b"], pair["dominates"]) == ("joint/pareto", "joint/grid", "joint/pareto")
    assert (pair["covered_of_a"], pair["covered_of_b"]) == (0, 2)
    assert pair["difference"] == pytest.approx([17 / 30] * 3)
    assert front_sentences(results)[0].startswith(
        "The front of joint/pareto dominates that of joint/grid, of the same cost (98 epochs against 100): it covers 2 "
        "of the 2 points of joint/grid, and joint/grid covers 0 of the 2 points of joint/pareto."
    )
    quick = {**rows[0], "latency_us": 50.0}
    said = front_sentences(results_of([quick, *rows[1:]], tables))[0]
    assert said.startswith("The front of joint/pareto does not dominate that of joint/grid") and "covers 1 of" in said


def test_the_hypervolumes_differ_by_the_bootstrap_of_the_requests():
    rows, tables, recalls = made_up()
    results = results_of(rows, tables)
    (pair,), reference = results["pairs"], results["reference"]
    rng, volumes = np.random.default_rng(0), []
    draws = rng.integers(0, 60, size=(1000, 60))
    best = max(one["recall"] for one in results["rows"] if one["latency_us"])
    box = (best - reference["recall"]) * 200
    for drawn in draws:
        kept = {one["run_id"]: max(recalls[one["run_id"]][0][drawn].mean() - reference["recall"], 0) for one in rows}
        grid_a, _, pareto_a, pareto_c, _ = (kept[one["run_id"]] for one in rows)
        pareto = pareto_a * 100 + max(pareto_a, pareto_c) * 100
        volumes.append((pareto - grid_a * 200) / box)  # the grid's second point is at the limit
    assert pair["difference"][1:] == pytest.approx(np.percentile(volumes, [2.5, 97.5]))


def test_the_finding_says_who_how_surely_and_who_else():
    rows, tables, _ = made_up()
    said = finding(results_of(rows, tables))
    assert re.match(
        r"Of 5 runs c \(joint/pareto\) keeps the most of the teacher's top 150: 5\d\.\d% \(95% interval", said
    )
    assert said.endswith("60 requests tell all the others from it.")
    tables[rows[2]["run_id"]] = tables[rows[3]["run_id"]]
    said = finding(results_of(rows, tables))
    assert "60 requests cannot tell 1 of the others from it" in said
    slow = [{**one, "latency_us": 250.0} if one["name"] == "a" and one["group"] == "p" else one for one in rows]
    slow = sorted(slow, key=lambda one: one["latency_us"] or 0, reverse=True)  # of equal runs the first is the best
    said = finding(results_of(slow, tables))
    assert said.endswith("the quickest of these is c (joint/pareto), 200 µs a request instead of 250.")


def test_the_table_shows_the_best_rows_and_no_more(results):
    console = Console(width=130, file=io.StringIO())
    console.print(terminal_table(results, 2))
    lines = console.file.getvalue().splitlines()
    shown = [line for line in lines if re.match(r"[a-d] \(joint", line)]
    assert len(shown) == 2 and "base" in shown[0] and re.search(r"-\d\.\d ±\d\.\d", shown[1])
    assert "•" in shown[0] and "•" not in shown[1] and "…" not in "".join(lines)


def render(results, folder, top=20) -> tuple[str, Page]:
    html = write_page_of(results, folder / "compare.html", top=top).read_text(encoding="utf-8")
    return html, Page(html)


@pytest.mark.slow
def test_the_page_holds_rows_fronts_reasons_and_figures(results, tmp_path):
    html, page = render(results, tmp_path)
    for text in (
        finding(results),
        *front_sentences(results),
        "stopped early by asha",
        "that flatters it",
        "sqlite:///",
    ):
        assert text in page.words, text
    assert "Compared with c (joint/pareto), the best mean recall" in page.words
    assert "1 runs without a latency are not in it." in page.words
    alts = [attrs["aria-label"] for tag, attrs in page.attributes if tag == "svg"]
    assert len(alts) == len(compare_figures(results)) == 5
    assert len(set(page.ids)) == len(page.ids)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.attributes} and "http" not in html
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", drawings)  # every colour follows the scheme
    used = set(re.findall(r"var\((--[a-z-]+)\)", html))
    assert used <= set(re.findall(r"(--[a-z-]+):", html))
    assert "The other 3 runs" in render(results, tmp_path, top=2)[1].words


@pytest.mark.slow
def test_what_there_is_no_data_for_is_left_out(tmp_path):
    rows, tables, _ = made_up()
    rows = [{**one, "latency_us": None, "features": None, "widths": None, "curve": []} for one in rows]
    for one in rows:
        one["params"] = {"distill.score": 1.0, "form": "a"}
    results = results_of(rows, tables)
    assert set(compare_figures(results)) == set() and results["pairs"] == []
    html, page = render({**results, "left_out": []}, tmp_path)
    assert "Fronts" not in page.words and "Left out 0" in page.words and "Pareto" not in html
    alone = results_of(made_up()[0][:1], tables)
    assert "Δ recall" not in render(alone, tmp_path)[1].words.split("Best mean")[0]
    assert finding(alone).endswith(").")


@pytest.mark.slow
def test_names_are_text_and_neither_markup_nor_mathematics(tmp_path):
    rows, tables, _ = made_up()
    bad = "<script>alert(1)</script> $x_1$"
    rows[3]["name"], rows[3]["params"]["form"] = bad, bad
    results = results_of(rows, tables)
    html, page = render({**results, "swept": [bad, "form"], "rows": [
        {**one, "params": {bad: i, "form": one["params"]["form"]}} for i, one in enumerate(results["rows"])
    ]}, tmp_path)  # fmt: skip
    assert "<script" not in html and page.words.count("<script>alert(1)</script>") >= 3


def test_the_front_is_drawn_as_steps_with_the_points_of_its_group(results):
    axes = compare_figures(results)["pareto"].axes[0]
    steps = {line.get_color(): line for line in axes.lines if line.get_drawstyle() == "steps-post"}
    by_label = {one["label"]: one for one in results["rows"]}
    for colour, group in zip(("#0062a3", "#d04e00"), results["groups"], strict=True):
        front = [by_label[name] for name in group["front"]]
        xy = [(one["latency_us"], pytest.approx(100 * one["recall"])) for one in front]
        assert list(zip(*steps[colour].get_data(), strict=True))[: len(front)] == xy
    dots = sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() in ("o", "s"))
    assert dots == 4  # one was not timed


def test_how_often_a_feature_was_chosen(results):
    assert chosen_shares(results["rows"]) == {"x": (1.0, 1.0), "y": (0.4, 0.5)}
    assert chosen_shares([{**one, "features": ["x"]} for one in results["rows"]]) == {}


def test_running_medians():
    grid = running_median([1, 2, 1, 2, 1, 2, 1, 2], [1, 5, 2, 6, 9, 7, 3, 8])
    assert grid == [(1.0, 2.5), (2.0, 6.5)]
    x, y = np.arange(20.0), np.random.default_rng(0).random(20)
    line = running_median(x, y)
    assert [at for at, _ in line] == list(x)
    assert line[0][1] == np.median(y[:7]) and line[10][1] == np.median(y[7:14])
    assert running_median([1, 2, 3], [1, 2, 3]) == running_median([1.0] * 9, range(9)) == []


def test_a_long_label_keeps_both_ends():
    assert short("abcdefghij", 10) == "abcdefghij" and short("abcdefghijk", 10) == "abcde…hijk"


def test_an_axis_is_logarithmic_where_the_values_are():
    rng = np.random.default_rng(0)
    assert is_logarithmic(10 ** rng.uniform(-4, -2, 30)) and is_logarithmic([0.01, 0.1, 1.0])
    assert not is_logarithmic(rng.uniform(0, 1, 1000)) and not is_logarithmic([0.0, 0.1, 1.0, 0.01])
    assert not is_logarithmic([1.0, 2.0, 4.0])


def test_a_store_that_does_not_answer_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no such file; give --tracking-uri"):
        connect(f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []  # none was made
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for scheme in ("http", "postgresql"):
        with pytest.raises(InputError, match="does not answer") as raised:
            connect(f"{scheme}://me:secret@127.0.0.1:{port}/x")
        assert "secret" not in str(raised.value) and "\n" not in str(raised.value)


def test_one_way_to_name_the_runs(tmp_path):
    for options in ({}, {"parents": "a", "runs": "b"}):
        with pytest.raises(InputError, match="expected one of --parents, --runs and --query"):
            main(Compare(tmp_path, **options))
    with pytest.raises(InputError, match="--top 0"):
        main(Compare(tmp_path, runs="a", top=0))


# --- MLflow's side


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two sweeps, one of other requests, one of another K, a pipeline of two arms, and a parent without children."""
    folder = tmp_path_factory.mktemp("compare")
    uri, artifacts = f"sqlite:///{folder}/mlflow.db", folder / "artifacts"
    client = MlflowClient(uri)
    sweep = {"trials": 5, "stopped": 1, "failed": 1, "epochs": 2, "requests": 40}
    ids = {
        "pareto": write_sweep(uri, artifacts, **sweep, sampler="pareto", seed=1),
        "grid": write_sweep(uri, artifacts, **{**sweep, "stopped": 0}, sampler="grid", seed=2),
        "elsewhere": write_sweep(uri, artifacts, **sweep, requests_named="q", seed=3),
        "k": write_sweep(uri, artifacts, **sweep, k=100, seed=4),
        "dead": write_sweep(uri, artifacts, trials=1, stopped=0, failed=1, seed=5),
    }
    ids["pipeline"] = _pipeline(client, folder)
    ids["childless"] = client.create_run(client.get_experiment_by_name("tune").experiment_id).info.run_id
    return uri, ids


def _pipeline(client: MlflowClient, folder) -> str:
    experiment = client.create_experiment("pipeline", artifact_location=(folder / "pipeline").as_uri())
    parent = client.create_run(experiment, run_name="pipeline").info.run_id
    rng, columns = np.random.default_rng(9), {"request_id": [f"t{i}" for i in range(30)]}
    for i, name in enumerate(("base", "contrast", "teacher")):
        columns |= {f"{name}.recall": rng.random(30) + i, f"{name}.hit_rate": rng.random(30)}
        client.log_metric(parent, f"test/{name}/recall_at_150", 0.5)
        client.log_metric(parent, f"test/{name}/latency_us", 100.0 + i)
        run = client.create_run(experiment, run_name=name, tags={"mlflow.parentRunId": parent}).info.run_id
        client.log_param(run, "distill.contrast", 0.5 * i)
        client.log_param(run, "name", name)
    pq.write_table(pa.table(columns), folder / "requests.parquet")
    client.log_artifact(parent, str(folder / "requests.parquet"))
    client.create_run(experiment, run_name="evaluate", tags={"mlflow.parentRunId": parent})
    return parent


@pytest.mark.slow
def test_two_sweeps_from_mlflow_to_the_page(store, tmp_path, capsys):
    uri, ids = store
    parents = f"{ids['pareto']},{ids['grid']}"
    results = main(Compare(tmp_path / "out", parents=parents, tracking_uri=uri, top=3))
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == results
    assert results["k"] == 150 and results["requests_of"] == "validation" and results["swept"] == list(SWEPT)
    client = MlflowClient(uri)
    assert len(results["rows"]) == 3 + 4
    for one in results["rows"]:
        run = client.get_run(one["run_id"])
        assert one["recall"] == pytest.approx(run.data.metrics["best/recall_at_150"])
        assert one["hit_rate"] == pytest.approx(run.data.metrics["best/hit_rate_at_150"])
        assert one["latency_us"] == one["fetch_us"] + one["inference_us"] == run.data.metrics["latency_us"]
        assert {key: str(value) for key, value in one["params"].items()} == {key: run.data.params[key] for key in SWEPT}
        assert one["epochs"] == 2 and [epoch for epoch, _ in one["curve"]] == [1, 2]
        assert one["curve"][-1][1] == run.data.metrics["val/recall_at_150"]
        assert one["group"] == run.data.tags["mlflow.parentRunId"] and {"price", "rating"} <= set(one["features"])
    reasons = sorted((one["name"], one["reason"]) for one in results["left_out"])
    assert reasons == [
        ("best", "not a trial of the sweep"), ("best", "not a trial of the sweep"),
        ("trial_00003", "stopped early by asha"), ("trial_00004", "failed"), ("trial_00004", "failed"),
    ]  # fmt: skip
    assert [group["epochs"] for group in results["groups"]] == [8, 9]
    table = pq.read_table(tmp_path / "out" / "compare.parquet")
    assert table.num_rows == 40 and table.num_columns == 15
    said = capsys.readouterr()
    assert "... and 4 more" in said.out and "5 runs left out" in said.out and "compare.html" in said.out
    assert "Downloading" not in said.err
    assert "The front of joint/pareto" in Page((tmp_path / "out" / "compare.html").read_text()).words


@pytest.mark.slow
def test_of_one_parent_the_results_are_artifacts_of_it(store, tmp_path):
    uri, ids = store
    main(Compare(tmp_path / "out", parents=ids["pareto"], tracking_uri=uri))
    client = MlflowClient(uri)
    logged = {file.path for file in client.list_artifacts(ids["pareto"])}
    assert {"compare.html", "compare.json", "compare.parquet", "figures"} <= logged
    drawn = {file.path for file in client.list_artifacts(ids["pareto"], "figures")}
    assert {"figures/pareto.png", "figures/parallel.png", "figures/response.png"} <= drawn


@pytest.mark.slow
def test_the_arms_of_a_pipeline_share_its_table(store, tmp_path):
    uri, ids = store
    results = main(Compare(tmp_path / "out", parents=ids["pipeline"], tracking_uri=uri, base="base"))
    names = {one["name"]: one for one in results["rows"]}
    assert (
        set(names) == {"base", "contrast"}
        and results["requests_of"] == "test"
        and results["swept"] == ["distill.contrast"]
    )
    assert names["base"]["latency_us"] == 100.0 and names["contrast"]["vs_base"]["recall"][0] > 0.5
    reasons = {one["name"]: one["reason"] for one in results["left_out"]}
    assert reasons["teacher"].startswith("the teacher") and set(reasons) == {"teacher", "evaluate"}


@pytest.mark.slow
def test_a_query_and_a_list_find_the_same(store, tmp_path):
    uri, ids = store
    query = f"tags.`mlflow.parentRunId` = '{ids['grid']}' and tags.kind = 'trial'"
    found = main(Compare(tmp_path / "q", query=query, experiment="tune", tracking_uri=uri))
    listed = main(Compare(tmp_path / "l", runs=",".join(one["run_id"] for one in found["rows"]), tracking_uri=uri))
    assert listed["rows"] == found["rows"] and len(found["left_out"]) == 1 and listed["left_out"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"runs": "nothere"}, "run nothere: not in sqlite"),
        ({"parents": "{childless}"}, "has no children; give the run of a sweep"),
        ({"parents": "{dead}"}, "no comparable run .*trial_00000: failed"),
        ({"parents": "{pareto},{dead}"}, "parent .*: no comparable run"),
        ({"parents": "{pareto},{elsewhere}"}, "measured on different requests: 40 of 40"),
        ({"parents": "{pareto},{k}"}, "recall is counted at different K: .*: 150, .*: 100"),
        ({"parents": "{pareto},{pipeline}"}, "these are of different requests: .*: validation, .*: test"),
        ({"runs": "{pareto}"}, "a sweep: its trials are compared, with --parents"),
        ({"query": "tags.space = 'none'"}, "no run found"),
        ({"query": "nonsense"}, "--query 'nonsense': "),
        ({"query": "tags.a = 'b'", "experiment": "tuna"}, "no such experiment; expected one of .*tune"),
    ],
)
def test_what_cannot_be_compared_is_named(store, tmp_path, options, fault):
    uri, ids = store
    with pytest.raises(InputError, match=fault) as raised:
        main(
            Compare(tmp_path / "out", tracking_uri=uri, **{key: value.format(**ids) for key, value in options.items()})
        )
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()
