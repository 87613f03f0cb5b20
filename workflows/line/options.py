"""What the whole line is asked for, and the command that asks for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from prerank.core.config import Positive, Seed, Share, Weight, Widths, Within, plain
from prerank.latency.options import Latency
from prerank.models.options import Distill, Hard, Optim, Positions
from prerank.samples.build import Split
from prerank.samples.draw import DrawConfig
from prerank.search.options import Search
from prerank.training.arms import TEACHER
from prerank.training.options import Compute


@dataclass(frozen=True)
class Pipeline:
    """Run the whole line, from logs to an evaluated, distilled pre-ranking student."""

    logs: Path
    out: Path
    features: str = ""
    """The students' features, with commas; empty: the schema's hand_picked, or all that are not teacher_only."""
    widths: Widths = "64,32"
    """Hidden widths of the students, with commas."""
    teacher_widths: Widths = "256,128,64"
    """Hidden widths of the teacher, with commas."""
    unexposed_ratio: Weight = 3.0
    """Unexposed negatives for each exposed item in the teacher's training."""
    k: Positive = 150
    """Items that pre-ranking keeps."""
    m: Annotated[int | None, Within(1)] = None
    """The teacher's top M that the K are held against; by default K."""
    val_requests: Positive = 300
    """Requests of the validation day that decide on early stopping."""
    max_dropped: Share = 0.05
    """Stop where faults of the logs cost more than this share of the rows."""
    seed: Seed = 0
    draw: DrawConfig = DrawConfig()
    split: Split = Split()
    positions: Positions = "teacher"
    """Whose order of the fine lists the strategies and rank bins follow: the teacher's, or the one that was logged."""
    hard: Hard = "pairwise"
    """The students' loss of the strategies' pairs; as in train_student."""
    distill: Distill = Distill(score=1.0, contrast=10.0)
    """What the arms score and contrast distil; all and the search its scores, and_contrast both."""
    budget_us: Annotated[float | None, Within(0, above=True)] = None
    """Hard limit of fetch and inference of the searched student; by default what the students' features cost."""
    search: Search = Search()
    latency: Latency = Latency(candidates=0)
    """Of the search; 0 candidates: as many as the requests of the validation day have (their median)."""
    optim: Optim = Optim()
    """Of the students and the search."""
    teacher_optim: Optim = TEACHER
    compute: Compute = Compute()
    study: Literal["none", "ladder", "distill", "search", "all"] = "none"
    """Instead of the line's own comparison: models, what is distilled, what is searched, or all of these, by seeds."""
    seeds: Positive = 3
    """Of a study: this one and those after it."""
    models: str = ""
    """Of the ladder, with commas; empty: all, from the linear combination of 2016 on."""


def command(config: Pipeline) -> str:
    """The command line that says the same."""
    defaults = plain(Pipeline(config.logs, config.out))
    changed = [f"--{key} {value}" for key, value in plain(config).items() if value != defaults[key]]
    return " ".join([f"python -m workflows.pipeline --logs {config.logs} --out {config.out}", *changed])
