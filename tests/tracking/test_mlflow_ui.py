"""A sweep in MLflow's own pages: what a person finds there, in a real browser."""

import pytest
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient
from server_fixture import started
from sweep_fixture import write_sweep

pytest.importorskip("selenium")

from browser_fixture import (
    chromium,
    compare,
    compared,
    compared_metric,
    drawn_picture,
    evidence,
    missing,
    open_artifact,
    open_experiment,
    row_texts,
    run_names,
    toggle_columns,
    unfold,
    wait,
)

pytestmark = [pytest.mark.browser, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

TRIALS = [f"trial_{place:05d}" for place in range(6)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The server's URL, the parent's run id, and the children as MLflow knows them, by name."""
    folder = tmp_path_factory.mktemp("mlflow")
    with started(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts") as url:
        parent = write_sweep(url, trials=len(TRIALS), stopped=1, failed=1)
        figure = Figure(figsize=(5, 3), dpi=100)
        figure.subplots().plot([1, 2, 3], [0.4, 0.5, 0.6], "o")
        client = MlflowClient(url)
        client.log_figure(parent, figure, "figures/pareto.png")
        children = client.search_runs([client.get_run(parent).info.experiment_id], "tags.kind = 'trial'")
        yield url, parent, {child.info.run_name: child for child in children}


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(window, sweep, tmp_path):
    """The browser of somebody who has not been here before, with the table of the sweep's runs before them."""
    window.get("about:blank")  # a page that is open would write its state again
    window.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": sweep[0], "storageTypes": "all"})
    with evidence(window, tmp_path):
        open_experiment(window, sweep[0], "tune")
    return window


def test_a_sweep_unfolds_into_its_trials(browser, sweep, tmp_path):
    with evidence(browser, tmp_path):
        _, parent, trials = sweep
        assert run_names(browser) == ["tune"]
        unfold(browser, parent)
        wait(browser, lambda: run_names(browser) == ["tune", "best", *reversed(TRIALS)], "list of the trials")
        toggle_columns(browser, "Dataset", "Source", "Models", "distill.score", "val/recall_at_150")
        for trial in trials.values():
            shown = {trial.data.params["distill.score"], str(trial.data.metrics["val/recall_at_150"])}
            wait(browser, lambda row=trial.info.run_id, shown=shown: shown <= set(row_texts(browser, row)), f"{shown}")


def test_two_trials_stand_side_by_side(browser, sweep, tmp_path):
    with evidence(browser, tmp_path):
        _, parent, trials = sweep
        pair = [trials[name] for name in TRIALS[:2]]
        unfold(browser, parent)
        compare(browser, *(trial.info.run_id for trial in pair))
        assert compared(browser, "Run Name:") == TRIALS[:2]
        assert compared(browser, "distill.score") == [trial.data.params["distill.score"] for trial in pair]
        values = [trial.data.metrics["val/recall_at_150"] for trial in pair]
        assert compared_metric(browser, "val/recall_at_150") == pytest.approx(values, abs=0.0005)  # it shows 3 decimals


def test_the_pareto_picture_is_drawn(browser, sweep, tmp_path):
    with evidence(browser, tmp_path):
        open_artifact(browser, sweep[1], "figures/pareto.png")
        assert drawn_picture(browser, "figures/pareto.png") == (500, 300)
