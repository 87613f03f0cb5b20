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
    below = [("network", Arch(some, widths)) for some in below_caps(space, budgets_us)]
    asked = [("network", Arch(every, widths)), *below, *((kind, Arch(every, widths)) for kind in OF_LOSS)]
    (in_metric, *of_loss), *others = confirm.valued(asked)
    valued = [in_metric, *(values[0] for values in others[: len(below)]), *of_loss]
    valued += [values[0] for values in others[len(below) :]]
    for budget_us in budgets_us:
        incumbent = incumbent_of(spec, schema, budget_us)
        confirm.search(budget_us, valued, [incumbent] if incumbent else [], spec.search.trainings)
    alone = sorted((Arch((f.name,), n.widths) for f in space.features if not f.of_request for n in space.networks[:2]),
                   key=space.latency_us)  # fmt: skip
    confirm.look([alone[0], Arch(every, widths)])
    return Confirmed(spec, confirm.rows())
