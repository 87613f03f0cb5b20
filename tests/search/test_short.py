"""Short trainings and values in the metric, on small samples of a made-up marketplace."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from samples_fixture import build, random_teacher, teach_here
from torch import nn

from prerank.core.errors import InputError
from prerank.models.arch import Arch
from prerank.models.options import Distill, Optim
from prerank.search.short import LOOK, Picked, hold, measured, run_steps, trained
from prerank.search.values import added, lost
from prerank.training.arms import student_arm
from prerank.training.options import Compute
from prerank.training.worker import Job


@pytest.fixture(scope="module")
def job(logs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    samples = build(logs, folder / "samples")
    taught = teach_here(samples, random_teacher(samples, folder / "teacher"), folder / "taught")
    return Job(taught, Compute(), 12)


@pytest.fixture(scope="module")
def held(job):
    features = tuple(f.name for f in hold_schema(job).features if not f.teacher_only)
    distill = Distill(score=1.0, contrast=0.5, projection=4)
    arm = student_arm(job.samples, features=features, distill=distill, optim=Optim(batch=16))
    return hold(arm, job)


def hold_schema(job):
    from prerank.logs.schema import load_schema

    return load_schema(job.samples)


@pytest.mark.slow
def test_a_training_is_the_same_each_time_and_learns(held):
    arch = Arch(held.arm.features, (8,))
    assert held.arm.distill.contrast == 0 and held.arm.distill.score == 1
    (first, metric_R), (again, _) = (trained(arch, held, 40, 0) for _ in range(2))
    np.testing.assert_array_equal(metric_R, measured(first, held))
    for here, there in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(here, there)
    blind, learned = (np.nanmean(trained(arch, held, steps, 0)[1]) for steps in (1, 40))
    assert learned > blind + 0.1


@pytest.mark.slow
def test_a_student_of_the_contrast_alone_is_measured_by_the_head_that_has_learned(job):
    """Its score is read from the projection, which becomes its last layer where it is finished."""
    features = tuple(f.name for f in hold_schema(job).features if not f.teacher_only)
    distill = Distill(contrast=5.0, projection=4)
    held = hold(student_arm(job.samples, features=features, distill=distill, optim=Optim(batch=16)), job)
    assert held.arm.distill.contrast
    arch = Arch(features, (8,))
    (_, blind_R), (ranker, learned_R) = (trained(arch, held, steps, 0) for steps in (1, 40))
    assert np.nanmean(learned_R) > np.nanmean(blind_R) + 0.1
    np.testing.assert_array_equal(learned_R, measured(ranker, held))


def test_numbers_that_are_normalised_once_are_those_of_each_network(held):
    """Bit for bit, of any features in any order of the schema's, of both sides and of one alone."""
    names, generator = [f.name for f in held.features], np.random.default_rng(0)
    items = [f.name for f in held.features if not f.of_request]
    chosen = [tuple(generator.permutation(names)[:n]) + tuple(items[:1]) for n in (2, 5, len(names))]
    for arch in (*(Arch(tuple(n for n in names if n in some), (8,)) for some in chosen), Arch(tuple(items[:1]), (8,))):
        ranker, _ = trained(arch, held, 1, 0)
        picked = Picked(held, ranker.embed)
        for batch in (held.batches[0], held.lists[0].batch):
            plain, _ = ranker(batch.features, batch.request_I)
            assert torch.equal(ranker(picked(batch).features, batch.request_I)[0], plain)


def test_what_is_lost_is_what_a_shuffled_column_costs(held):
    ranker, _ = trained(Arch(held.arm.features, (8, 4)), held, 40, 0)
    ranker.eval()
    said = lost(ranker, held, held.features, seed=3)
    generator = torch.Generator().manual_seed(3)
    total, count = dict.fromkeys(said, 0.0), 0
    for part in held.lists:
        x_R, x_I = ranker.embed(part.batch.features)
        orders = [torch.randperm(0 if x is None else len(x), generator=generator) for x in (x_R, x_I)]
        with torch.inference_mode():
            before_R = part.metric(ranker.trunk(x_R, x_I, part.batch.request_I)[0])
            count += int((~np.isnan(before_R)).sum())
            for feature in held.features:
                both_R, both_I = None if x_R is None else x_R.clone(), x_I.clone()
                columns, n = ranker.embed.columns[feature.name], ranker.embed.widths[0]
                if feature.of_request:
                    both_R[:, columns] = x_R[orders[0]][:, columns]
                else:
                    here = slice(columns.start - n, columns.stop - n)
                    both_I[:, here] = x_I[orders[1]][:, here]
                after_R = part.metric(ranker.trunk(both_R, both_I, part.batch.request_I)[0])
                total[feature.name] += np.nansum(before_R - after_R)
    for name, value in said.items():
        assert value == pytest.approx(total[name] / count, abs=0.02), name  # a tie may fall otherwise


def test_what_others_add_is_told_in_the_metric(held):
    full, _ = trained(Arch(held.arm.features, (8,)), held, 40, 0)
    values = lost(full, held, held.features, 0)
    best = max((f for f in held.features if not f.of_request), key=lambda f: values[f.name])
    rest = tuple(f.name for f in held.features if f != best)
    gained = added(trained(Arch(rest, (8,)), held, 40, 0)[0], full, held, (best,))
    assert set(gained) == {best.name} and gained[best.name] > 0


def test_a_training_ends_with_the_means_of_its_weights(held):
    """By another code path: the means in plain sums, over a third of so short a training."""
    steps, model, averaged = 12, nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    weights = []

    def loss_of(of):
        def loss(batch, step):
            weights.append(of.weight.item())
            return ((of.weight - 1) ** 2).sum()

        return loss

    with torch.no_grad():
        model.weight.fill_(0)
        averaged.weight.fill_(0)
    optim = replace(held.arm.optim, average=0.0)
    run_steps(model, loss_of(model), replace(held, arm=replace(held.arm, optim=optim)), steps, 0)
    by_step = [*weights[1:], model.weight.item()]
    run_steps(averaged, loss_of(averaged), held, steps, 0)
    mean = by_step[0]
    for done, weight in enumerate(by_step[1:], 2):
        share = min(0.75, (1 + done) / (10 + done))
        mean = share * mean + (1 - share) * weight
    assert averaged.weight.item() == pytest.approx(mean, rel=1e-5)


def test_the_best_look_on_the_way_counts(held):
    model, said = nn.Linear(1, 1, bias=False), [0.2, 0.7, 0.3]
    seen, told = [], iter(said)

    def look():
        seen.append(model.weight.item())
        return next(told)

    run_steps(model, lambda batch, step: ((model.weight - 5) ** 2).sum(), held, 2 * LOOK + 1, 0, look)
    assert model.weight.item() == seen[1] != seen[2] and len(seen) == 3


def test_a_cut_off_that_no_request_is_longer_than(held, job):
    with pytest.raises(InputError, match="has the recall that proposals are compared by"):
        hold(held.arm, Job(job.samples, job.compute, 100_000))
