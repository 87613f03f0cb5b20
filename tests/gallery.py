"""Pictures of a sweep for the README, from a running MLflow server:

    python tests/gallery.py http://127.0.0.1:5000 OUT [--experiment tune] [--parent RUN_ID] [--page compare.html]

Writes to the folder OUT `sweep.png` (the trials in their experiment), `compare.png` (the best trial beside the worst
of those that ran to their end), `pareto.png` (figures/pareto.png among the artifacts), and `page.png` (the page given).
The parent is the newest run of kind `sweep` where none is named. It takes the steps of tests/test_mlflow_ui.py.
"""

import argparse
import io
import json
import tempfile
from pathlib import Path

from browser_fixture import (
    HEIGHT,
    WIDTH,
    chromium,
    compare,
    drawn_picture,
    evidence,
    missing,
    open_artifact,
    open_experiment,
    row_texts,
    screenshot,
    see,
    toggle_columns,
    unfold,
    wait,
)
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from PIL import Image
from selenium.webdriver.remote.webdriver import WebDriver

MAX_WIDTH, MAX_BYTES = 1000, 120_000
TALL = 1250  # what differs between two trials, in one window
COLUMNS = 6  # as many as the table shows at this width
PARETO = "figures/pareto.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the MLflow server")
    parser.add_argument("out", type=Path, help="the folder for the pictures")
    parser.add_argument("--experiment", default="tune")
    parser.add_argument("--parent", metavar="RUN_ID", help="run id of the sweep")
    parser.add_argument("--page", type=Path, help="an HTML file to take as well")
    given = parser.parse_args()
    if missing():
        raise SystemExit(missing())
    given.out.mkdir(parents=True, exist_ok=True)
    parent, trials = sweep_of(MlflowClient(given.url), given.experiment, given.parent)
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as browser, evidence(browser, given.out):
        open_experiment(browser, given.url, given.experiment)
        take_sweep(browser, parent, trials[0], given.out)
        take_comparison(browser, [trials[0].info.run_id, trials[-1].info.run_id], given.out)
        open_experiment(browser, given.url, given.experiment)
        open_artifact(browser, parent.info.run_id, PARETO)
        drawn_picture(browser, PARETO)
        save(browser, given.out / "pareto.png")
        if given.page:
            browser.get(given.page.resolve().as_uri())
            see(browser, "//body//*")
            save(browser, given.out / "page.png")


def sweep_of(client: MlflowClient, experiment: str, parent_id: str | None) -> tuple[Run, list[Run]]:
    """The sweep's run, and its trials that ran to their end, the best first."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise SystemExit(f"no experiment {experiment!r} on this server; name another with --experiment")
    if parent_id is None:
        newest = client.search_runs([found.experiment_id], "tags.kind = 'sweep'", max_results=1)
        if not newest:
            raise SystemExit(f"experiment {experiment!r}: no run with the tag kind = sweep; name one with --parent")
        parent_id = newest[0].info.run_id
    parent = client.get_run(parent_id)
    best = f"best/{parent.data.tags['metric']}"
    children = f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.kind = 'trial'"
    trials = client.search_runs([found.experiment_id], children, order_by=[f"metrics.`{best}` DESC"])
    trials = [trial for trial in trials if best in trial.data.metrics]
    if len(trials) < 2:
        raise SystemExit(f"run {parent_id}: {len(trials)} trials ran to their end, a comparison needs 2")
    return parent, trials


def take_sweep(browser: WebDriver, parent: Run, trial: Run, out: Path) -> None:
    """Unfolds the sweep in the table of runs, with what a trial comes to beside what was swept."""
    unfold(browser, parent.info.run_id)
    ends = [name for name in (f"best/{parent.data.tags['metric']}", "latency_us") if name in trial.data.metrics]
    columns = [*ends, *json.loads(parent.data.tags["swept"])][:COLUMNS]
    toggle_columns(browser, "Dataset", "Source", "Models", *columns)
    save(browser, out / "sweep.png")


def take_comparison(browser: WebDriver, pair: list[str], out: Path) -> None:
    browser.set_window_size(WIDTH, TALL)
    wait(browser, lambda: all(row_texts(browser, trial) for trial in pair), "rows of the two trials")
    compare(browser, *pair)
    # pressing has scrolled the page down and the metrics a little aside
    browser.execute_script(
        "document.querySelectorAll('main, main *').forEach(part => { part.scrollTop = 0; part.scrollLeft = 0 })"
    )
    save(browser, out / "compare.png")
    browser.set_window_size(WIDTH, HEIGHT)


def save(browser: WebDriver, path: Path) -> None:
    """The window as a PNG of at most `MAX_WIDTH` and `MAX_BYTES`, with as many colours as fit."""
    image = Image.open(io.BytesIO(screenshot(browser))).convert("RGB")
    height = round(image.height * MAX_WIDTH / image.width)
    image = image.resize((MAX_WIDTH, height), Image.Resampling.LANCZOS) if image.width > MAX_WIDTH else image
    for colours in (None, 256, 64, 16):
        drawn = image.quantize(colours, kmeans=3, dither=Image.Dither.NONE) if colours else image
        drawn.save(path, optimize=True)
        if path.stat().st_size < MAX_BYTES:
            return
    raise SystemExit(f"{path}: {path.stat().st_size} bytes even in 16 colours, expected below {MAX_BYTES}")


if __name__ == "__main__":
    main()
