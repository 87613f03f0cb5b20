"""All that results.json says of an evaluation, reckoned again from the logs' own files: Polars to read them, loops over
lists, exact fractions, and no code of the product but the models' scores."""

import math
import shutil
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from samples_fixture import here, random_teacher

from prerank.evaluation import evaluate as module
from prerank.evaluation.evaluate import evaluate
from prerank.evaluation.plan import plan
from prerank.evaluation.scores import scores_of
from prerank.logs.folder import open_logs

pytestmark = pytest.mark.slow  # counts all anew

K, CURVE = 12, (3, 12, 30)


@pytest.fixture(scope="module")
def measured(logs, samples, tmp_path_factory):
    """Logs with lists of 2 to 48 candidates, requests without a click and a truth with ties; two students, one of them
    ignorant, whose scores and the teacher's take few values; and what the evaluation says."""
    folder = tmp_path_factory.mktemp("recomputed")
    shutil.copytree(logs, folder / "logs")
    rng = np.random.default_rng(0)
    candidates = pl.read_parquet(logs / "candidates/*.parquet")
    wanted = {request: int(rng.integers(2, 49)) for request in candidates["request_id"].unique().sort().to_list()}
    place = candidates.select(place=pl.int_range(pl.len()).over("request_id"))["place"].to_list()
    candidates = candidates.filter(
        pl.Series([p < wanted[r] for p, r in zip(place, candidates["request_id"], strict=True)])
    )
    rewrite(folder / "logs/candidates", candidates)
    shown = pl.read_parquet(logs / "impressions/*.parquet")
    quiet = pl.col("request_id") % 3 == 0
    never = pl.lit(False)
    flags = [pl.when(quiet).then(never).otherwise(pl.col(name)).alias(name) for name in ("clicked", "converted")]
    rewrite(folder / "logs/impressions", shown.with_columns(flags))
    truth = candidates.select("request_id", "item_id").with_columns(
        pl.Series("click_probability", np.round(rng.random(len(candidates)), 1))
    )
    (folder / "logs/truth").mkdir()
    truth.sample(fraction=1, shuffle=True, seed=1).write_parquet(folder / "logs/truth/0.parquet")

    models = {
        "teacher": random_teacher(samples, folder / "teacher", seed=0),
        "student": random_teacher(samples, folder / "student", kind="student", features=("price", "match"), seed=1),
        "ignorant": random_teacher(samples, folder / "ignorant", kind="student", features=("price", "brand"), seed=2),
    }
    scores: dict[str, dict] = {name: {} for name in models}

    def rounded(table, model):
        name = next(n for n, path in models.items() if model.manifest["fingerprint"] == fingerprints[n])
        out = np.round(5 * scores_of(table, model)) / 5
        out = np.zeros_like(out) if name == "ignorant" else out
        rows = zip(table["request_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)
        scores[name] |= dict(zip(((r, i) for r, items in rows for i in items), out.tolist(), strict=True))
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "whole_requests", here)
        patch.setattr(module, "executed", lambda parts: parts)
        patch.setattr(module, "scores_of", rounded)
        students = {name: models[name] for name in ("student", "ignorant")}
        planned = plan(open_logs(folder / "logs"), str(models["teacher"]), students, k=K, curve=CURVE)
        fingerprints = {name: known for name, (_, known) in planned.models.items()}
        found = evaluate(planned, blocks=3, seed=5)
    return found, requests_of(folder / "logs", scores, np.datetime64(planned.test_from, "us").item())


def rewrite(folder, table):
    shutil.rmtree(folder)
    folder.mkdir()
    table.write_parquet(folder / "0.parquet")


def requests_of(logs, scores, test_from):
    """By request its candidates: item, labels, truth and every model's score."""
    rows = pl.read_parquet(logs / "candidates/*.parquet", columns=["request_id", "item_id", "ts"])
    shown = pl.read_parquet(logs / "impressions/*.parquet").select(
        "request_id", "item_id", exposed=pl.lit(True), clicked="clicked", converted="converted"
    )
    truth = pl.read_parquet(logs / "truth/*.parquet")
    table = rows.filter(pl.col("ts") >= test_from).join(shown, ["request_id", "item_id"], how="left")
    table = table.join(truth, ["request_id", "item_id"], how="left").with_columns(
        pl.col("exposed", "clicked", "converted").fill_null(False)
    )
    out = {}
    for row in table.to_dicts():
        row |= {name: of[row["request_id"], row["item_id"]] for name, of in scores.items()}
        out.setdefault(row["request_id"], []).append(row)
    return out


def chances(items, key, k):
    """By place in the list: how probably it is among the first k."""
    out = []
    for item in items:
        above = sum(other[key] > item[key] for other in items)
        equal = sum(other[key] == item[key] for other in items)
        out.append(min(Fraction(1), max(Fraction(0), Fraction(k - above, equal))))
    return out


def ratio(a, b):
    return float(a / b) if b else math.nan


def auc(positive, negative, key):
    pairs = [(a[key] > b[key]) + 0.5 * (a[key] == b[key]) for a in positive for b in negative]
    return ratio(sum(pairs), len(pairs))


def ndcg(items, key):
    total, place = 0.0, 0
    for score in sorted({item[key] for item in items}, reverse=True):
        tie = [item for item in items if item[key] == score]
        mean = sum(item["clicked"] for item in tie) / len(tie)
        for _ in tie:
            total += mean / math.log2(place + 2) if place < 10 else 0
            place += 1
    clicks = sum(item["clicked"] for item in items)
    return ratio(total, sum(1 / math.log2(p + 2) for p in range(min(10, clicks))))


def ctr(items, key):
    """The teacher's ties from the best down: how many of the student's undecided ones each holds is drawn in turn."""
    kept = chances(items, key, K)
    undecided = sum(0 < p < 1 for p in kept)
    slots = min(K, len(items)) - sum(p == 1 for p in kept)
    states = {(0, slots): Fraction(1)}  # kept so far, and still to be kept of the undecided
    total = Fraction(0)
    for score in sorted({item["teacher"] for item in items}, reverse=True):
        tie = [(item, p) for item, p in zip(items, kept, strict=True) if item["teacher"] == score and p]
        sure = [Fraction(item["click_probability"]) for item, p in tie if p == 1]
        open_ = [Fraction(item["click_probability"]) for item, p in tie if p < 1]
        after = {}
        for (above, left), chance in states.items():
            for y in range(min(len(open_), left) + 1):
                ways = math.comb(len(open_), y) * math.comb(undecided - len(open_), left - y)
                if not ways:
                    continue
                p = chance * Fraction(ways, math.comb(undecided, left))
                there = len(sure) + y
                shown = max(0, min(10 - above, there))
                if there:
                    total += p * shown * (sum(sure) + (y * sum(open_) / len(open_) if open_ else 0)) / there
                state = above + there, left - y
                after[state] = after.get(state, 0) + p
        states, undecided = after, undecided - len(open_)
    return float(total / min(10, K, len(items)))


def of_request(items, key):
    """Every metric of a request, by the names of results.json, and by `exposed.` and `unexposed.` those of slices."""
    n = len(items)
    s, t, best = (chances(items, name, k) for name, k in ((key, K), ("teacher", K), ("click_probability", 10)))
    clicked, passed = ([i for i in items if i["clicked"] is on] for on in (True, False))
    exposed, hidden = ([i for i in items if i["exposed"] is on] for on in (True, False))

    def kept(share, of):
        return ratio(sum(p for p, item in zip(share, items, strict=True) if item[of]), sum(i[of] for i in items))

    def overlap(on):
        both = [(p * q, q) for p, q, item in zip(s, t, items, strict=True) if item["exposed"] is on]
        return ratio(sum(a for a, _ in both), sum(b for _, b in both))

    out = {
        f"recall_at_{K}": ratio(sum(p * q for p, q in zip(s, t, strict=True)), min(K, n)),
        f"hit_rate_at_{K}": kept(s, "clicked"),
        f"hit_rate_converted_at_{K}": kept(s, "converted"),
        f"true_hit_rate_at_{K}": ratio(sum(p * q for p, q in zip(s, best, strict=True)), min(10, n)),
        "ctr": ctr(items, key),
        "ndcg_at_10": ndcg(items, key),
        "gauc": auc(clicked, passed, key),
        f"exposed.recall_at_{K}": overlap(True),
        f"exposed.hit_rate_at_{K}": kept(s, "clicked"),
        "exposed.ndcg_at_10": ndcg(exposed, key),
        "exposed.gauc": auc(clicked, [i for i in exposed if not i["clicked"]], key),
        f"unexposed.recall_at_{K}": overlap(False),
        "unexposed.ndcg_at_10": ndcg(clicked + hidden, key),
        "unexposed.gauc": auc(clicked, hidden, key),
        f"random_recall_at_{K}": min(1, K / n),
    }
    for c in CURVE:
        a, b = chances(items, key, c), chances(items, "teacher", c)
        out[f"curve.recall.{c}"] = ratio(sum(p * q for p, q in zip(a, b, strict=True)), min(c, n))
        out[f"curve.hit_rate.{c}"] = kept(a, "clicked")
    return out


def weight(name, items):
    exposed = sum(item["exposed"] for item in items)
    return {"gauc": len(items), "exposed.gauc": exposed, "unexposed.gauc": len(items) - exposed}.get(name, 1)


def interval(values, weights, seed=5):
    """The percentile bootstrap of the weighted mean; NaN is left out of each draw."""
    values, weights = np.array(values), np.array(weights, float)
    weights[np.isnan(values)] = 0
    draws = np.random.default_rng(seed).integers(0, len(values), size=(1000, len(values)))
    totals = weights[draws].sum(axis=1)
    means = (np.nan_to_num(values) * weights)[draws].sum(axis=1)[totals > 0] / totals[totals > 0]
    return np.percentile(means, [2.5, 97.5])


def look_up(row, name):
    if name.startswith("curve."):
        _, metric, c = name.split(".")
        return row["curve"][metric][row["curve"]["k"].index(int(c))]
    where, dot, metric = name.rpartition(".")
    return row["slices"][where][metric] if dot else row[name]


@pytest.mark.parametrize("name", ["student", "ignorant", "teacher"])
def test_every_mean_and_interval(measured, name):
    found, requests = measured
    row = found.rows[name]
    order = found.per_request["request_id"].to_pylist()  # in which the bootstrap draws
    assert sorted(order) == sorted(requests)
    by_request = [of_request(requests[request], name) for request in order]
    for metric in by_request[0]:
        values = [of[metric] for of in by_request]
        weights = [0 if math.isnan(v) else weight(metric, requests[r]) for v, r in zip(values, order, strict=True)]
        mean = np.average(np.nan_to_num(values), weights=weights)
        assert look_up(row, metric) == pytest.approx(mean, abs=1e-10), metric
        if not metric.startswith(("curve.", "random_")):
            expected = interval(values, [weight(metric, requests[r]) for r in order])
            assert look_up(row, f"{metric}_ci") == pytest.approx(expected, abs=1e-10), metric
    assert row["requests"] == len(requests) == 60
    clicked = sum(any(item["clicked"] for item in items) for items in requests.values())
    assert row["requests_with_click"] == clicked < 60


@pytest.mark.parametrize("name", ["student", "ignorant", "teacher"])
def test_the_auc_over_all_requests(measured, name):
    found, requests = measured
    order = found.per_request["request_id"].to_pylist()
    items = [item for request in order for item in requests[request]]
    slices = {
        "": items,
        "exposed.": [i for i in items if i["exposed"]],
        "unexposed.": [i for i in items if i["clicked"] or not i["exposed"]],
    }
    for prefix, some in slices.items():
        positive, negative = ([i for i in some if i["clicked"] is on] for on in (True, False))
        area = auc(positive, negative, name)
        assert look_up(found.rows[name], f"{prefix}auc") == pytest.approx(area, abs=1e-10)
        influence = dict.fromkeys(order, 0.0)
        for side, others, sign in ((positive, negative, 1), (negative, positive, -1)):
            for item in side:
                won = np.mean([0.5 + 0.5 * sign * np.sign(item[name] - other[name]) for other in others])
                influence[item["request_id"]] += len(order) * (won - area) / len(side)
        expected = interval([area + influence[request] for request in order], [1] * len(order))
        assert look_up(found.rows[name], f"{prefix}auc_ci") == pytest.approx(expected, abs=1e-10)


def test_the_facts(measured):
    found, requests = measured
    sizes = [len(items) for items in requests.values()]
    facts = found.facts
    assert facts["requests"] == len(sizes) and facts["candidates"] == pytest.approx(np.mean(sizes))
    assert facts["requests_at_most_k"] == sum(n <= K for n in sizes) > 0
    tied = sum(any(0 < p < 1 for p in chances(items, "teacher", K)) for items in requests.values())
    assert 0 < tied < len(sizes) and facts["ties"]["teachers_top"] == tied
    same = {
        name: sum(len(items) > 1 and len({item[name] for item in items}) == 1 for items in requests.values())
        for name in ("student", "ignorant", "teacher")
    }
    assert same["ignorant"] == sum(n > 1 for n in sizes)
    assert facts["ties"]["one_score"] == {name: n for name, n in same.items() if n}


def test_a_difference_is_paired_by_request(measured):
    found, requests = measured
    order = found.per_request["request_id"].to_pylist()
    metric = f"hit_rate_at_{K}"
    values = [of_request(requests[r], "student")[metric] - of_request(requests[r], "ignorant")[metric] for r in order]
    expected = np.nanmean(values), *interval(values, [1] * len(values), seed=0)
    assert found.against("student", "ignorant", "hit_rate") == pytest.approx(expected, abs=1e-10)


def test_the_ignorant_student_is_a_blind_draw(measured):
    row = measured[0].rows["ignorant"]
    assert row[f"recall_at_{K}"] == pytest.approx(row[f"random_recall_at_{K}"])
    assert row["auc"] == row["gauc"] == 0.5
    assert measured[0].rows["teacher"][f"recall_at_{K}"] < 1  # as ties decide its top of some requests
