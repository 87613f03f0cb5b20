"""Processes that each prepare once and then answer questions, wherever the cluster has room for them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

import ray

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

RESTARTS = 3
"""Of a process that was lost, and attempts at what it was asked."""


class _Answerer:
    """The actor."""

    def __init__(self, prepare: Callable[[], Callable[[Any], Any]]) -> None:
        self.answer = prepare()

    def ready(self) -> None:
        """Returns when it has a place and is prepared."""

    def ask(self, asked: object) -> object:
        return self.answer(asked)


class Pool(Generic[Asked, Answer]):
    """Answers come in the order of the questions, from as many processes as the cluster has room for, one at least and
    `most` at most; the same question must have the same answer in each.

    Each joins when there is room: what another program, or the pool before this one, holds is free a little later.
    """

    def __init__(self, prepare: Callable[[], Callable[[Asked], Answer]], *, cpus: float, most: int) -> None:
        room = int(ray.cluster_resources().get("CPU", 0.0) // cpus)
        actor = ray.remote(num_cpus=cpus, max_restarts=RESTARTS, max_task_retries=RESTARTS)(_Answerer)
        self.actors = [cast(Any, actor).remote(prepare) for _ in range(max(1, min(most, room)))]

    def __enter__(self) -> "Pool[Asked, Answer]":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            ray.kill(actor)

    def __call__(self, asked: Sequence[Asked]) -> Iterator[Answer]:
        """Each process gets its next question when it has answered: a long one holds up no other."""
        waiting, answers = list(enumerate(asked))[::-1], {}
        at: dict[Any, tuple[int | None, Any]] = {actor.ready.remote(): (None, actor) for actor in self.actors}
        for place in range(len(asked)):
            while place not in answers:
                done, _ = ray.wait(list(at), num_returns=1)
                answered, actor = at.pop(done[0])
                answer = ray.get(done[0])
                if answered is not None:
                    answers[answered] = answer
                if waiting:
                    number, question = waiting.pop()
                    at[actor.ask.remote(question)] = number, actor
            yield answers.pop(place)
