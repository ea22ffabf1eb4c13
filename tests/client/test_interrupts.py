"""Ctrl-C: held back, let in, and never lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from gpudev_client import Client, interrupts
from gpudev_client._aside import Aside
from gpudev_client._steps import Flow, Pause, Step

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_it_comes_at_once_where_nothing_holds_it() -> None:
    with pytest.raises(KeyboardInterrupt):
        press()


def test_it_is_let_in_at_the_next_wait() -> None:
    reached: list[str] = []
    with interrupts.held():
        press()
        reached.append("after it")
        with pytest.raises(KeyboardInterrupt):
            interrupts.let_in(lambda: reached.append("the wait"))
        interrupts.let_in(lambda: reached.append("the next wait"))
    assert reached == ["after it", "the next wait"]


def test_it_ends_the_wait_that_it_comes_into() -> None:
    with interrupts.held(), pytest.raises(KeyboardInterrupt):
        interrupts.let_in(press)


def test_it_ends_a_pause() -> None:
    interrupts.pause(0.001)
    with interrupts.held():
        press()
        with pytest.raises(KeyboardInterrupt):
            interrupts.pause(3600)


def test_it_comes_at_the_end_of_the_block_at_the_latest() -> None:
    reached: list[str] = []

    def block() -> None:
        with interrupts.held():
            with interrupts.held():
                press()
            reached.append("inside the outer one")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached


def test_a_hold_within_a_wait_ends_where_it_is_welcome_again() -> None:
    reached: list[str] = []

    def wait() -> None:
        with interrupts.held():
            press()
            reached.append("held")
        reached.append("not held")

    with interrupts.held():
        with pytest.raises(KeyboardInterrupt):
            interrupts.let_in(wait)
        press()
        with pytest.raises(KeyboardInterrupt):
            interrupts.let_in(lambda: None)
    assert reached == ["held"]


def test_the_second_one_does_not_wait() -> None:
    with interrupts.held():
        press()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_an_error_goes_first_and_takes_it_along() -> None:
    def block() -> None:
        with interrupts.held():
            press()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        block()
    with interrupts.held():
        interrupts.let_in(lambda: None)


def test_somebody_elses_plans_for_it_stay() -> None:
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    with interrupts.held():
        press()
        interrupts.let_in(lambda: None)
    press()
    assert len(came) == 2


def test_what_was_there_before_is_there_again() -> None:
    with interrupts.held():
        interrupts.let_in(lambda: None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_is_not_lost_in_what_the_collector_calls() -> None:
    class Garbage:
        def __del__(self) -> None:
            press()

    with pytest.raises(KeyboardInterrupt), interrupts.held():
        Garbage()


def test_work_aside_answers_and_raises() -> None:
    aside, done = Aside(), list[threading.Thread]()

    def fail() -> None:
        raise ValueError("mine")

    assert aside.do(threading.current_thread) is not threading.main_thread()
    with pytest.raises(ValueError, match="mine"):
        aside.do(fail)
    aside.end(lambda: done.append(threading.current_thread()))
    assert done != [threading.main_thread()]
    assert len(done) == 1


def test_work_that_is_left_goes_on_and_is_cleared_away_behind() -> None:
    aside, go_on, cleared = Aside(), threading.Event(), threading.Event()
    order: list[str] = []

    def work() -> None:
        press()  # in another thread than the one that waits, which does not wake it
        assert go_on.wait(30)
        order.append("work")

    def clear() -> None:
        order.append("clear")
        cleared.set()

    with pytest.raises(KeyboardInterrupt):
        aside.do(work)
    aside.end(clear)
    assert order == []
    go_on.set()
    assert cleared.wait(30)
    assert order == ["work", "clear"]


@pytest.mark.parametrize("steps", [[], [Pause(0)]], ids=["its result", "its next wait"])
def test_a_flow_is_not_torn(steps: list[Step]) -> None:
    reached: list[str] = []

    def flow() -> Flow[str]:
        press()
        reached.append("after it")
        yield from steps
        return "result"

    with Client("http://127.0.0.1:1/nobody") as client, pytest.raises(KeyboardInterrupt):
        client.transport.run(flow())
    assert reached == ["after it"]


def test_outside_of_the_main_thread_nothing_is_put_aside() -> None:
    seen: list[threading.Thread] = []

    def run() -> None:
        aside = Aside()
        seen.append(aside.do(threading.current_thread))
        aside.end(lambda: seen.append(threading.current_thread()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [thread, thread]
