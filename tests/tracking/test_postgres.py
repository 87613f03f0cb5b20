"""Runs on a server whose store is PostgreSQL, as a cluster has it."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from server_fixture import free_port, postgres, started

from prerank.tracking.runs import open_run
from prerank.tracking.unsent import Spool

pytestmark = [pytest.mark.slow, pytest.mark.faults]  # a database and a server start


def test_runs_go_on_after_an_outage(tmp_path, monkeypatch):
    (tmp_path / "arch.json").write_text("{}")

    def opened(name, parent=None):
        return open_run(name, out=tmp_path / "out", state=tmp_path / f"{name}.json", params={"a.b": 1}, parent=parent)

    with postgres(tmp_path) as store:
        server = store, tmp_path / "artifacts", free_port()
        with started(*server) as uri:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            parent = opened("tune")
            trial = opened("trial", parent)
            trial.metrics({"val/auc": 0.5}, step=1)
            trial.artifact(tmp_path / "arch.json")
        trial.metrics({"val/auc": 0.75}, step=2)
        late = opened("late", parent)
        late.artifact(tmp_path / "arch.json", "kept")
        for one in (trial, late, parent):
            one.end("FAILED")
        assert not Spool(parent.spool).empty()
        with started(*server):
            again = opened("tune")
            assert again == parent and Spool(parent.spool).empty()
            opened("trial", again).end()
            again.end()
            assert not parent.spool.exists()

            client = MlflowClient(uri)
            runs = {one.info.run_name: one for one in client.search_runs([parent.experiment_id])}
            assert len(client.search_runs([parent.experiment_id])) == len(runs) == 3
            status = {name: one.info.status for name, one in runs.items()}
            assert status == {"tune": "FINISHED", "trial": "FINISHED", "late": "FAILED"}
            assert all(one.data.params == {"a.b": "1"} for one in runs.values())
            for name in ("trial", "late"):
                assert runs[name].data.tags["mlflow.parentRunId"] == parent.run_id
            values = client.get_metric_history(trial.run_id, "val/auc")
            assert [(value.step, value.value) for value in values] == [(1, 0.5), (2, 0.75)]
            kept = client.download_artifacts(runs["late"].info.run_id, "kept/arch.json")
            assert Path(kept).read_text() == "{}"
