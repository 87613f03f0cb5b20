"""One search by proposals, from valuers to what was confirmed within each budget."""

from collections.abc import Callable, Sequence

from prerank.logs.schema import Schema
from prerank.models.arch import Arch
from prerank.search.confirm import Ask, Confirm, Task
from prerank.search.confirmed import LAST, Confirmed, incumbent_of
from prerank.search.derive import cheapest
from prerank.search.evaluator import CEGB, GATES, OWN, PRICED
from prerank.search.knapsack import network_of
from prerank.search.options import MethodName
from prerank.search.propose import below_caps, space_of
from prerank.search.rivals import untrained_values
from prerank.search.spec import Spec

VALUERS = ("network", GATES, *OWN, CEGB)
"""Kinds of valuers that the search by proposals hears."""
VALUED: dict[MethodName, tuple[str, int]] = {
    "permutation_free": ("network", 1),
    "gradient_free": ("network", 2),
    "fscd_free": ("fscd", 0),
    "squeeze_excite_free": ("squeeze_excite", 0),
    "shuffle_gate_free": ("shuffle_gate", 0),
    "cegb_free": (CEGB, 0),
}
"""Of a rival with its choice of widths the kind of its valuer, and which of the answers is its own."""


def find(spec: Spec, schema: Schema, ask: Ask, say: Callable[[str], None] = lambda said: None) -> Confirmed:
    """Values, proposes, confirms and refines, for the budget and then for the others of the front."""
    space = space_of(spec, schema)
    confirm = Confirm(space, ask, say, spec.arm.seed, spec.search.steps)
    widths, every = spec.arm.widths, spec.arm.features
    budgets_us = spec.budgets_us
    say(f"what each of {len(every)} features is worth")
    whole = Arch(every, widths)
    gates = _gates(confirm, spec, whole, budgets_us)
    below = [confirm.valuer("network", Arch(some, widths), 1) for some in below_caps(space, budgets_us)]
    others = [_valuer(confirm, spec, kind, whole, 1) for kind in (*OWN, CEGB)]
    # As long as the longest training: after a shorter one, embeddings and vectors look idle beside plain numbers.
    said = iter(confirm.valued([confirm.valuer("network", whole, LAST), *gates.values(), *below, *others]))
    in_metric, *of_loss = next(said)
    within = {budget_us: next(said) for budget_us in gates}
    valued = [in_metric, *(next(said)[0] for _ in below), *of_loss, *(one[0] for one in said)]
    for budget_us in budgets_us:
        incumbent = incumbent_of(spec, schema, budget_us)
        heard = [*valued, *within.get(budget_us, [])]
        confirm.search(budget_us, heard, [incumbent] if incumbent else [], spec.search.trainings)
    alone = sorted((Arch((f.name,), n.widths) for f in space.features if not f.of_request for n in space.networks[:2]),
                   key=space.latency_us)  # fmt: skip
    confirm.look([alone[0], Arch(every, widths)])
    return Confirmed(spec, confirm.rows())


def alone(spec: Spec, schema: Schema, ask: Ask, say: Callable[[str], None] = lambda said: None) -> Confirmed:
    """A rival with the freedom of ours: its own order of the features, valued after a training as long as our longest,
    makes the best set for every network; as many trainings choose among them, and its best is its answer."""
    confirm = Confirm(space_of(spec, schema), ask, say, spec.arm.seed, spec.search.steps, refines=False)
    method, every = spec.search.method, spec.arm.features
    whole = Arch(every, spec.arm.widths)
    budgets_us = spec.budgets_us
    if method == "autofas_free":
        gates = _gates(confirm, spec, whole, budgets_us)
        within = {us: said[0] for us, said in zip(gates, confirm.valued([*gates.values()]), strict=True)}
    elif method in VALUED:
        kind, place = VALUED[method]
        (said,) = confirm.valued([_valuer(confirm, spec, kind, whole, LAST)])
        within = dict.fromkeys(budgets_us, said[place])
    else:
        worth_M = untrained_values(method, spec.features(schema), schema.hand_picked, spec.arm.seed)
        values = dict(zip(every, worth_M.tolist(), strict=True))
        within = dict.fromkeys(budgets_us, values)
    for budget_us, values in within.items():
        confirm.search(budget_us, [values], [], spec.search.trainings)
    return Confirmed(spec, confirm.rows())


def _valuer(confirm: Confirm, spec: Spec, kind: str, whole: Arch, rung: int) -> Task:
    return confirm.valuer(kind, whole, rung, spec.budget_us if kind in PRICED else 0.0)


def _gates(confirm: Confirm, spec: Spec, whole: Arch, budgets_us: Sequence[float]) -> dict[float, Task]:
    """By budget the valuer that searches within it, of those that have room for the smallest network at all."""
    costs = confirm.space.costs
    smallest = network_of(costs.table, (min(spec.candidates),) * spec.search.layers)
    least_us = cheapest(costs, [smallest])[2]
    return {us: confirm.valuer(GATES, whole, LAST, us) for us in budgets_us if us >= least_us}
