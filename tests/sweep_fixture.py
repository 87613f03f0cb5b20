"""A made-up sweep in MLflow, as workflows.tune writes one: a parent, its trials and what became of each.

What a trial comes to follows from its parameters and the seed, so that a page drawn from it shows a trade-off: a
higher `latency.penalty` buys time with features and recall; `distill.score` is best near 1.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

FEATURES = {"price": 3.0, "rating": 2.0, "brand": 12.0, "affinity": 151.0, "history": 240.0, "query_match": 95.0}
"""What each takes to fetch, µs; the first two are always chosen."""
SWEPT = ("distill.score", "distill.temperature", "latency.penalty", "pairs")


def write_sweep(
    uri: str,
    artifacts: Path | None = None,
    *,
    trials: int = 12,
    stopped: int = 2,
    failed: int = 1,
    epochs: int = 4,
    requests: int = 200,
    k: int = 150,
    space: str = "joint",
    sampler: str = "random",
    scheduler: str = "asha",
    experiment: str = "tune",
    timed: bool = True,
    searched: bool = True,
    requests_named: str = "r",
    seed: int = 0,
) -> str:
    """Writes the sweep and returns its parent's run id.

    artifacts: where the experiment's artifacts go; None leaves it to the server. Of the trials, the last `failed` have
    failed and those before them were `stopped` after one epoch. timed: whether the trials have a latency; searched:
    whether the trials differ in their features. The requests are the same whatever the seed.
    """
    rng = np.random.default_rng(seed)
    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    location = artifacts.resolve().as_uri() if artifacts else None
    experiment_id = found.experiment_id if found else client.create_experiment(experiment, artifact_location=location)
    done = trials - stopped - failed
    spent = done * epochs + stopped + failed
    tags = {"kind": "sweep", "space": space, "sampler": sampler, "scheduler": scheduler}
    tags |= {"swept": json.dumps(SWEPT), "metric": f"recall_at_{k}"}
    parent = client.create_run(experiment_id, run_name="tune", tags=tags).info.run_id
    _log(client, parent, {"trials": trials, "epochs": spent}, {"trials": trials, "space": space, "sampler": sampler})
    drawn = [_params(rng, place, sampler) for place in range(trials)]
    best = max(drawn[:done], key=lambda params: _truth(params)[0], default=None)
    for place, params in enumerate(drawn):
        ended = "done" if place < done else "stopped" if place < done + stopped else "failed"
        tags = {"mlflow.parentRunId": parent, "kind": "trial", "trial_id": f"{seed:03d}{place:05d}", "space": space}
        tags |= {"stopped_early": "true"} if ended == "stopped" else {}
        run = client.create_run(experiment_id, run_name=f"trial_{place:05d}", tags=tags).info.run_id
        _trial(client, run, params, ended, epochs, requests, k, timed, searched, requests_named, rng)
        client.set_terminated(run, "FAILED" if ended == "failed" else "FINISHED")
    if best:
        run = client.create_run(experiment_id, run_name="best", tags={"mlflow.parentRunId": parent}).info.run_id
        _log(client, run, {}, {**_flat(best), "name": "best"})
        client.set_terminated(run, "FINISHED")
    client.set_terminated(parent, "FINISHED")
    return parent


def _params(rng: np.random.Generator, place: int, sampler: str) -> dict:
    if sampler == "grid":
        score, penalty = (0.0, 0.5, 1.0, 2.0)[place % 4], (0.01, 0.1, 1.0)[place // 4 % 3]
        return dict(zip(SWEPT, (score, 0.07, penalty, ("binned", "ranked")[place % 2]), strict=True))
    draws = (rng.uniform(0, 2), 10 ** rng.uniform(-2, 0), 10 ** rng.uniform(-2, 0.5))
    return dict(zip(SWEPT, (*map(float, draws), str(rng.choice(["binned", "ranked", "low rank"]))), strict=True))


def _flat(params: dict) -> dict:
    return {**params, "seed": 0, "optim.lr": 0.001, "widths": [64, 32]}


def _truth(params: dict) -> tuple[float, tuple[str, ...], list[int], dict[str, float]]:
    """Recall, features, widths and times that follow from the parameters."""
    afford = 1.2 - 0.4 * (np.log10(params["latency.penalty"]) + 2)  # 1.2 to 0.2
    features = tuple(name for name, cost in FEATURES.items() if cost < 10 or cost / 260 < afford)
    wide = [64, 32] if afford > 0.6 else [32, 0]
    fetch, inference = 40 + max(FEATURES[name] for name in features), 60 + 0.9 * sum(wide) + 8 * len(features)
    off = (params["distill.score"] - 1) ** 2 + 0.15 * (np.log10(params["distill.temperature"]) + 1.1) ** 2
    kept = 0.62 - 0.07 * off - 0.02 * (len(FEATURES) - len(features)) - 0.02 * (wide[1] == 0)
    return kept + 0.01 * (params["pairs"] == "ranked"), features, wide, {"fetch_us": fetch, "inference_us": inference}


def _trial(client, run, params, ended, epochs, requests, k, timed, searched, requests_named, rng) -> None:
    kept, features, wide, times = _truth(params)
    if not searched:
        features = tuple(FEATURES)
    seen = {"done": epochs, "stopped": 1, "failed": 1}[ended]
    steps = []
    for epoch in range(1, seen + 1):
        here = kept * (1 - 0.75 * 0.4**epoch) - (0.1 if ended == "stopped" else 0)
        said = {"val/recall_at_": here, "val/hit_rate_at_": 0.8 * here}
        steps += [(f"{name}{k}", value, epoch) for name, value in said.items()]
        steps += [("val/auc", 0.5 + here / 4, epoch), ("train/loss", 1 - here, epoch)]
    ends = {}
    if ended == "done":
        rows = _requests(requests, kept, requests_named, rng)
        ends = {f"best/{name}_at_{k}": float(np.nanmean(rows[name])) for name in ("recall", "hit_rate")}
        ends |= {"epochs": epochs} | ({**times, "latency_us": sum(times.values())} if timed else {})
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "arch.json").write_text(json.dumps({"features": features, "widths": wide}))
            pq.write_table(pa.table(rows), Path(folder) / "requests.parquet")
            client.log_artifacts(run, folder)
    _log(client, run, ends, _flat(params), steps)


def _requests(requests: int, kept: float, named: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What the requests have in common is theirs whatever the trial: that is what pairing gains by."""
    shared = np.random.default_rng(1234)
    ease, clicks = shared.normal(0, 0.12, requests), shared.integers(0, 4, requests)
    recall = np.clip(kept + ease + rng.normal(0, 0.03, requests), 0, 1)
    hits = np.where(clicks > 0, rng.binomial(clicks, 0.8 * recall) / np.maximum(clicks, 1), np.nan)
    order = rng.permutation(requests)  # a table's rows stand in any order
    ids = np.array([f"{named}{i:06d}" for i in range(requests)])
    auc = np.where(clicks > 0, 0.5 + recall / 4, np.nan)
    return {
        name: values[order]
        for name, values in {"request_id": ids, "recall": recall, "hit_rate": hits, "auc": auc}.items()
    }


def _log(client, run: str, metrics: dict, params: dict, steps: list = ()) -> None:
    now = int(1000 * time.time())
    entries = [(name, value, 0) for name, value in metrics.items()] + list(steps)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in params.items()}
    client.log_batch(
        run,
        metrics=[Metric(name, float(value), now, step) for name, value, step in entries],
        params=[Param(key, value) for key, value in texts.items()],
    )
