"""A sweep as its driver sees it: a live table of the trials while it runs, and at the end what each came to.

The table is ours, as Tune's CLIReporter prints a whole new one every few seconds instead of redrawing it in place.
"""

import json
import time
from dataclasses import asdict

from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console
from rich.live import Live as Screen
from rich.table import Table
from rich.text import Text

from prerank.core.outputs import write_json
from prerank.sweeps.outcome import Outcome
from prerank.sweeps.trial import FAULT, LATENCY, Trials, name_of

SHOWN = 30
WORDS = {"TERMINATED": "done", "RUNNING": "running", "PENDING": "waits", "PAUSED": "paused", "ERROR": "failed"}


class Live(tune.Callback):
    """Draws while the sweep runs, and writes `trials.json` at its end.

    Ray keeps it with the state of the sweep, so it holds nothing that cannot be pickled.
    """

    def __init__(self, trials: Trials, keys: tuple[str, ...], total: int, epochs: int) -> None:
        self.trials, self.keys, self.total, self.epochs = trials, keys, total, epochs
        self.screen: Screen | None = None
        self.last = 0.0

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"screen": None, "last": 0.0}

    def setup(
        self,
        stop: tune.Stopper | None = None,
        num_samples: int | None = None,
        total_num_samples: int | None = None,
        **_: object,
    ) -> None:
        self.screen = Screen(console=Console(), refresh_per_second=2, transient=True)
        self.screen.start()

    def on_step_end(self, iteration: int, trials: list[Trial], **_: object) -> None:
        if self.screen and time.monotonic() - self.last > 0.5:
            self.last = time.monotonic()
            self.screen.update(self.table(trials))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: object) -> None:
        last = trial.last_result or {}
        if last and not last.get("finished"):  # one that did has ended its run itself
            run = self.trials.run(trial.trial_id, trial.config)
            run.tags({"stopped_early": "true"})
            run.end("FAILED" if FAULT in last else "FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: object) -> None:
        self.trials.run(trial.trial_id, trial.config).end("FAILED")

    def on_experiment_end(self, trials: list[Trial], **_: object) -> None:
        if self.screen:
            self.screen.stop()
        rows = [asdict(self._outcome(trial)) for trial in trials if trial.last_result or trial.num_failures]
        write_json(self.trials.out / "trials.json", sorted(rows, key=lambda row: (row["begun"], row["trial_id"])))

    def _outcome(self, trial: Trial) -> Outcome:
        last, failed = trial.last_result or {}, trial.status == Trial.ERROR
        reported = {} if FAULT in last else last
        error = str(trial.get_error() or "").strip()[-2000:] if trial.num_failures else None
        begun = self.trials.folder(trial.trial_id) / "drawn.json"
        return Outcome(
            name=name_of(trial.trial_id),
            trial_id=trial.trial_id,
            begun=json.loads(begun.read_text())["begun"] if begun.is_file() else 0.0,
            drawn=trial.config,
            status="failed" if failed else "finished" if last.get("finished") else "stopped",
            epochs=last.get("epoch", 0),
            value=reported.get(self.trials.metric),
            latency_us=reported.get(LATENCY) or None,
            failures=trial.num_failures,
            error=error,
            fault=last.get(FAULT),
        )

    def table(self, trials: list[Trial]) -> Table:
        """The trials that ended and those under way; of many, the latest."""
        ended = sum(trial.is_finished() for trial in trials)
        table = Table(
            title=f"{ended} of {self.total} trials done", title_justify="left", box=None, padding=(0, 1, 0, 0)
        )
        for heading in ("trial", "state", *self.keys, "epoch", self.trials.metric, "µs", "failures"):
            table.add_column(heading, justify="left" if heading in ("trial", "state") else "right", no_wrap=True)
        values = [t.last_result.get(self.trials.metric) for t in trials if t.last_result]
        best = max((v for v in values if v is not None), default=None)
        for trial in sorted(trials, key=lambda t: not t.is_finished())[-SHOWN:]:
            last = trial.last_result or {}
            value, latency_us = last.get(self.trials.metric), last.get(LATENCY)
            table.add_row(
                name_of(trial.trial_id),
                WORDS.get(trial.status, trial.status),
                *(short(trial.config.get(key)) for key in self.keys),
                f"{last.get('epoch', 0)}/{self.epochs}",
                Text("" if value is None else f"{100 * value:.1f}", style="bold" if value == best else ""),
                f"{latency_us:.0f}" if latency_us else "",
                str(trial.num_failures or ""),
            )
        return table


def short(value: object) -> str:
    """A drawn value in a table."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
