"""Runs in MLflow: one an output, gone on with where it is still there, never doubled."""

import json

import pytest
from mlflow.tracking import MlflowClient

from prerank.tracking import run

pytestmark = pytest.mark.slow  # a new SQLite store takes seconds to set up


def opened(folder, name="job", **options):
    return run(name, out=folder / "out", state=folder / f"{name}.json", params={"a.b": 1, "form": "x"}, **options)


def test_runs_are_resumed_nested_and_end_in_their_state(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with opened(tmp_path) as first:
        first.metrics({"x": 1.0, "nothing": None, "nan": float("nan")}, step=3)
        with opened(tmp_path, "step", parent=first, tags={"samples": "abc"}) as step:
            pass
    with pytest.raises(KeyError), opened(tmp_path) as again:
        raise KeyError
    assert again == first
    client = MlflowClient(first.uri)
    data = client.get_run(first.run_id).data
    assert data.params == {"a.b": "1", "form": "x"} and data.metrics == {"x": 1.0}
    assert client.get_run(first.run_id).info.status == "FAILED"
    child = client.get_run(step.run_id)
    assert child.info.status == "FINISHED" and child.data.tags["samples"] == "abc"
    assert child.data.tags["mlflow.parentRunId"] == first.run_id
    assert len(client.search_runs([first.experiment_id])) == 2
    assert client.get_experiment(first.experiment_id).name == "job"

    state = tmp_path / "job.json"
    known = json.loads(state.read_text())
    state.write_text(json.dumps(known | {"run_id": "0" * 32}))
    with opened(tmp_path) as new:
        assert new.run_id not in (first.run_id, "0" * 32)

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere/other.db")
    with opened(tmp_path) as other:
        assert other.uri.endswith("other.db") and other.run_id != new.run_id
