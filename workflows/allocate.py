"""Allocates fine-ranking's work: how many candidates to score and to keep for each request under one total budget.

    python -m workflows.allocate --logs runs/logs --teacher runs/demo/teacher --student runs/demo/students/all \
        --out runs/allocation

The policy is fitted on the validation days of the student's samples and held on the test days against one K for all at
equal cost. In OUT stand policy.json, which a server applies, results.json and allocation.png.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console

from prerank.core import cli
from prerank.core.cluster.start import start_ray
from prerank.core.config import Numbers, Positive, Seed, Weight, Within, names
from prerank.core.errors import InputError
from prerank.core.outputs import write_json
from prerank.core.storage import place, whole
from prerank.evaluation.allocated import Found, Question, allocate, check_order, policy_file, value_for
from prerank.evaluation.allocation import Costs
from prerank.evaluation.plan import plan
from prerank.evaluation.preflight import LOGGED
from prerank.evaluation.results_file import finished
from prerank.logs.folder import open_logs
from prerank.reports.allocation import figure, sentence, terminal_table


@dataclass(frozen=True)
class Allocate:
    """Allocate how many candidates each request has scored and kept, under one total budget."""

    logs: Path
    teacher: str
    """A folder made by workflows.train_teacher, or `logged` for the logs' own fine_score (over the fine lists)."""
    student: Path
    """A folder made by workflows.train_student."""
    out: Path
    """A folder for the policy, the results and the figure."""
    k: Positive = 150
    """What is kept of every request today: all candidates scored and K kept are the budget."""
    value: Literal["auto", "ctr", "teacher", "clicked"] = "auto"
    """What to have most of: ctr, the expected clicks on what is shown (takes truth/); teacher, what is kept of the ten
    that the teacher would show; clicked, what is kept of the clicked. auto: ctr with a truth, else teacher."""
    score_cost: Weight = 0.1
    """What it costs to score a candidate, where fine-ranking one costs 1; on the demo 0.14 of 1.45 µs."""
    shares: Annotated[str, Numbers(Within(0, 1, above=True), whole=False)] = "1,0.75,0.5"
    """Shares of the candidates that may be scored, with commas; 1 among them."""
    order: str = ""
    """A feature by whose falling values candidates arrive, so that the first are scored; empty: in no order."""
    blocks: Annotated[int | None, Within(1)] = None
    """About how many parts to cut the logs into; changes no figure."""
    seed: Seed = 0
    """Of the folds and the bootstrap."""


def main(config: Allocate) -> Found:
    """Returns what stands in results.json."""
    out = config.out.resolve()
    logs = open_logs(config.logs.resolve())
    teacher = config.teacher if config.teacher == LOGGED else str(place(config.teacher).resolve())
    planned = plan(logs, teacher, {"student": config.student.resolve()}, k=config.k)
    check_order(logs.schema, config.order)
    shares = tuple(sorted({float(share) for share in names(config.shares)}, reverse=True))
    if not shares or shares[0] != 1:
        raise InputError(f"--shares {config.shares}: expected 1 among them, what the others are held against")
    value = value_for(planned, config.value)
    question = Question(planned, shares, Costs(config.score_cost), value, config.order, config.seed)
    done = finished(out / "results.json", question.key)
    if done:
        print(f"{out}/results.json: already done")
        return done  # pyright: ignore[reportReturnType]  (of this very key, so written below)
    start_ray()
    found, policy = allocate(question, blocks=config.blocks)
    write_json(out / "policy.json", policy_file(policy, question))
    picture = io.BytesIO()
    figure(found).savefig(picture)
    with whole(out / "allocation.png") as file:
        file.write(picture.getvalue())
    write_json(out / "results.json", found)
    Console(width=max(116, Console().width)).print(terminal_table(found))
    print(sentence(found), f"{out}/policy.json", sep="\n")
    return found


if __name__ == "__main__":
    cli.run(main, Allocate)
