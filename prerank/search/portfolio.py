"""One search by proposals, from valuers to what was confirmed within each budget."""

from collections.abc import Callable

from prerank.core.config import names
from prerank.logs.schema import Schema
from prerank.models.arch import Arch
from prerank.search.confirm import Ask, Confirm
from prerank.search.confirmed import Confirmed, incumbent_of
from prerank.search.evaluator import OF_LOSS
from prerank.search.propose import below_caps, space_of
from prerank.search.spec import Spec


def find(spec: Spec, schema: Schema, ask: Ask, say: Callable[[str], None] = lambda said: None) -> Confirmed:
    """Values, proposes, confirms and refines, for the budget and then for the others of the front."""
    space = space_of(spec, schema)
    confirm = Confirm(space, ask, say, spec.arm.seed, spec.search.steps)
    widths, every = spec.arm.widths, spec.arm.features
    budgets_us = [spec.budget_us, *(float(share) * spec.budget_us for share in names(spec.search.front))]
    say(f"what each of {len(every)} features is worth")
    in_metric, *of_loss = confirm.valued(every, widths, "network")
    valued = [in_metric, *(confirm.valued(some, widths, "network")[0] for some in below_caps(space, budgets_us))]
    valued += [*of_loss, *(confirm.valued(every, widths, kind)[0] for kind in OF_LOSS)]
    for budget_us in budgets_us:
        incumbent = incumbent_of(spec, schema, budget_us)
        confirm.search(budget_us, valued, [incumbent] if incumbent else [], spec.search.trainings)
    alone = sorted((Arch((f.name,), n.widths) for f in space.features if not f.of_request for n in space.networks[:2]),
                   key=space.latency_us)  # fmt: skip
    confirm.look([alone[0], Arch(every, widths)])
    return Confirmed(spec, confirm.rows())
