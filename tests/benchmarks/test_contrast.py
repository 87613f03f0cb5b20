"""The contrast beside a mask over all pairs: the same loss, so that their times are of the same work."""

import torch

from prerank.benchmarks import contrast


def test_the_masks_say_what_the_contrast_says(monkeypatch):
    monkeypatch.setattr(contrast, "ITEMS", 30)
    made = contrast.MadeUp(3)
    losses = [of(made) for of in (contrast.ours, contrast.masked)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, made.student_ID)[0] for loss in losses))


def test_a_mask_keeps_all_pairs_of_the_batch_and_the_contrast_those_within_requests(monkeypatch):
    monkeypatch.setattr(contrast, "ITEMS", 100)
    kept = {(of, n): contrast._kept(of, contrast.MadeUp(n)) for of in (contrast.ours, contrast.masked) for n in (2, 8)}
    assert kept[contrast.ours, 8] < 4.2 * kept[contrast.ours, 2]
    assert kept[contrast.masked, 8] > 12 * kept[contrast.masked, 2]
