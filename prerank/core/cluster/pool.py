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

    def ask(self, asked: object) -> object:
        return self.answer(asked)


class Pool(Generic[Asked, Answer]):
    """Answers come in the order of the questions, from as many processes as there is room for when it is made, one at
    least and `most` at most; the same question must have the same answer in each."""

    def __init__(self, prepare: Callable[[], Callable[[Asked], Answer]], *, cpus: float, most: int) -> None:
        room = int(ray.available_resources().get("CPU", 0.0) // cpus)
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
        at: dict[Any, tuple[int, Any]] = {}

        def give(actor: object) -> None:
            if waiting:
                place, question = waiting.pop()
                at[cast(Any, actor).ask.remote(question)] = place, actor

        for actor in self.actors:
            give(actor)
        for place in range(len(asked)):
            while place not in answers:
                done, _ = ray.wait(list(at), num_returns=1)
                answered, actor = at.pop(done[0])
                answers[answered] = ray.get(done[0])
                give(actor)
            yield answers.pop(place)
