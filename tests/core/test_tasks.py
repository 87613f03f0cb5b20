"""What is tried again where storage fails, without Ray."""

import pytest

from prerank.core.cluster import tasks


@pytest.fixture
def waits(monkeypatch):
    slept = []
    monkeypatch.setattr(tasks.time, "sleep", slept.append)
    return slept


def failing(at, times):
    """Numbers up to 4; before `at` storage fails so many times."""
    left = [times]

    def numbers(last):
        for number in range(last + 1):
            if number == at and left[0]:
                left[0] -= 1
                raise OSError("no answer")
            yield number

    return numbers


@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("times", [0, 1, 3])
def test_what_comes_one_by_one_is_told_once(waits, at, times):
    assert list(tasks.resumed(failing(at, times))(4)) == [0, 1, 2, 3, 4]
    assert waits == list(tasks.WAITS_S[:times])


def test_each_of_them_has_its_tries(waits):
    failed = []

    def numbers():
        for number in range(5):
            if failed.count(number) < 2:
                failed.append(number)
                raise OSError("no answer")
            yield number

    assert list(tasks.resumed(numbers)()) == [0, 1, 2, 3, 4] and waits == list(tasks.WAITS_S[:2]) * 5


def test_what_fails_for_good_is_raised_after_what_came_before(waits):
    told = tasks.resumed(failing(2, 4))(4)
    assert [next(told), next(told)] == [0, 1]
    with pytest.raises(OSError, match="no answer"):
        next(told)
    assert waits == list(tasks.WAITS_S)


def test_other_errors_are_not_tried_again(waits):
    def wrong():
        yield 1
        raise ValueError("wrong")

    told = tasks.resumed(wrong)()
    assert next(told) == 1
    with pytest.raises(ValueError, match="wrong"):
        next(told)
    assert waits == []
