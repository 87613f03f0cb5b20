"""The training loop against libraries of click models: the same items, numbers, ids and widths, one thread of torch.

They learn clicks item by item where ours learns rankings and the teacher's scores: their loss is the cheaper one.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

from prerank.benchmarks.peer import Peer
from prerank.benchmarks.rows import Left, Row, in_turns, medians
from prerank.benchmarks.training import Pupil, students
from prerank.models.batch import Batch

OF_FUXICTR = 5.0
FUXICTR, RECHUB = Peer("FuxiCTR", ("fuxictr",)), Peer("torch-rechub", ("torch_rechub",))


def click_models(samples: Path, *, k: int, rounds: int, batches: int) -> list[Row | Left]:
    """The speed of the loop over all samples as a multiple of theirs over so many batches in memory."""
    peers = [peer for peer in (FUXICTR, RECHUB) if not peer.lacking]
    left: list[Row | Left] = [Left(f"train, {p.name}", p.lacking) for p in (FUXICTR, RECHUB) if p.lacking]
    if not peers:
        return left
    arm = students(samples)["score"]
    ours = Pupil.of(arm, samples, k)
    all_items = sum(len(batch.request_I) for batch in ours.batches())
    some = list(islice(ours.batches(packed=False), batches))
    items = sum(len(batch.request_I) for batch in some)
    with tempfile.TemporaryDirectory() as folder:
        turns: dict[str, Callable[[], object]] = {"ours": ours.epoch_alone}
        turns |= {peer.name: _quiet(_epoch(peer, ours, some, Path(folder))) for peer in peers}
        took = medians(in_turns(turns, rounds))
    speed = all_items / took["ours"]
    for peer in peers:
        theirs = items / took[peer.name]
        least = OF_FUXICTR if peer is FUXICTR else None
        what, detail = (
            f"speed of train_student's loop, of {peer.name}'s",
            f"{speed:,.0f} and {theirs:,.0f} items a second",
        )
        left.append(Row(f"train, {peer.name}", what, speed / theirs, "times", least=least, detail=detail))
    return left


def _epoch(peer: Peer, pupil: Pupil, batches: list[Batch], folder: Path) -> Callable[[], object]:
    from prerank.benchmarks.peers.items import items_of  # late, as are the peers

    features, widths = pupil.lesson.features, list(pupil.lesson.arm.widths)
    columns, label_N = items_of(batches, features)
    batch = len(label_N) // len(batches)
    whole = slice(batch * len(batches))  # torch-rechub's normalisation refuses a last batch of one item
    columns, label_N = {name: values[whole] for name, values in columns.items()}, label_N[whole]
    sizes = {feature.name: (feature.size, feature.dim) for feature in features if feature.dim}
    if peer is FUXICTR:
        from prerank.benchmarks.peers import fuxictr_train

        return fuxictr_train.epoch_of(columns, label_N, sizes, widths=widths, batch=batch, at=folder)
    from prerank.benchmarks.peers import rechub_train

    trainer = rechub_train.trainer_of(columns, sizes, widths)
    return rechub_train.epoch_of(trainer, columns, label_N, batch=batch)


def _quiet(epoch: Callable[[], object]) -> Callable[[], object]:
    """Without its bar of progress, which it draws to the end of a line that nobody reads."""
    return partial(_said_to_nobody, epoch)


def _said_to_nobody(epoch: Callable[[], object]) -> object:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return epoch()
