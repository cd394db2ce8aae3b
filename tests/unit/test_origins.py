"""What an origin bears: how many connections, from when, shared by all jobs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segdl._origins import RAISE_SECONDS, OriginLimits

A, B, C = 1, 2, 3


def opened(limits: OriginLimits, job: int, count: int, now: float = 0.0) -> None:
    """Open connections that are answered at once."""
    for _ in range(count):
        assert limits.room(job, now)
        limits.opened(job)
        limits.answered()


def test_nothing_is_limited_at_first() -> None:
    """An origin that refused nothing bears any number."""
    limits = OriginLimits()
    opened(limits, A, 100)
    assert limits.cap(0.0) is None
    assert limits.surplus(A, 0.0) == 0


def test_refusal_teaches_the_number_that_lives() -> None:
    """No more than those that were answered, for all jobs together."""
    limits = OriginLimits()
    opened(limits, A, 4)
    limits.refused(A, 0.0, alone=False)
    assert limits.cap(0.0) == 4
    assert not limits.room(A, 0.0)
    assert not limits.room(B, 0.0)


def test_answers_that_come_later_raise_what_a_refusal_taught() -> None:
    """Refusals are faster than answers: of five, one refused, four live in the end."""
    limits = OriginLimits()
    for _ in range(4):
        limits.opened(A)
    limits.answered()
    limits.refused(A, 0.0, alone=False)
    assert limits.cap(0.0) == 1
    for _ in range(3):
        limits.answered()
    assert limits.cap(0.0) == 4


def test_one_more_is_tried_after_a_while() -> None:
    """And after twice as long, when that one was refused too."""
    limits = OriginLimits()
    opened(limits, A, 2)
    limits.refused(A, 0.0, alone=False)
    assert limits.cap(RAISE_SECONDS - 1) == 2
    assert limits.cap(RAISE_SECONDS) == 3
    limits.refused(A, RAISE_SECONDS, alone=False)
    assert limits.cap(2 * RAISE_SECONDS) == 2
    assert limits.cap(3 * RAISE_SECONDS) == 3


def test_one_more_is_not_tried_before_it_was_told_to() -> None:
    """A Retry-After longer than the usual while counts; a shorter one does not."""
    for seconds in (1.0, 10 * RAISE_SECONDS):
        limits = OriginLimits()
        opened(limits, A, 2)
        limits.refused(A, 0.0, alone=False)
        limits.raise_after(seconds)
        wait = max(seconds, RAISE_SECONDS)
        assert limits.room(A, wait - 1) == 0
        limits.closed(A, answered=True)
        assert limits.room(A, 0.0) == 1, "those that live may go on"
        assert limits.cap(wait - 1) == 2
        assert limits.cap(wait) == 3


def test_others_get_their_share() -> None:
    """A job that waits gets a connection of one that has more than its share."""
    limits = OriginLimits()
    opened(limits, A, 4)
    limits.refused(A, 0.0, alone=False)
    assert limits.surplus(A, 0.0) == 0
    assert not limits.room(B, 0.0)
    assert limits.surplus(A, 0.0) == 1
    limits.closed(A, answered=True)
    assert not limits.room(A, 0.0), "it is for the one that waits"
    assert limits.room(B, 0.0)
    limits.opened(B)
    assert not limits.room(B, 0.0)
    assert limits.surplus(A, 0.0) == 1, "two of four are its share"


def test_file_that_is_always_refused_does_not_limit_others() -> None:
    """A job without a living connection teaches a number once, and not wrongly."""
    limits = OriginLimits()
    opened(limits, A, 6)
    limits.refused(B, 0.0, alone=True)
    assert limits.cap(0.0) == 6
    assert not limits.room(B, 0.0)
    limits.closed(A, answered=True)
    assert limits.room(B, 0.0)
    limits.refused(B, 0.0, alone=True)
    assert limits.cap(0.0) is None
    limits.refused(B, 0.0, alone=True)
    assert limits.cap(0.0) is None


def test_refusal_teaches_nothing_while_nobody_lives() -> None:
    """An origin that is down bears no number of connections, not one."""
    limits = OriginLimits()
    limits.refused(A, 0.0, alone=True)
    assert limits.cap(0.0) is None


def test_job_that_leaves_waits_no_more() -> None:
    """What a job waited for is no reason any more to give something up."""
    limits = OriginLimits()
    opened(limits, A, 4)
    limits.refused(A, 0.0, alone=False)
    assert not limits.room(B, 0.0)
    limits.leave(B)
    assert limits.surplus(A, 0.0) == 0


def test_nobody_opens_one_while_it_is_held_back() -> None:
    """The longest wait counts."""
    limits = OriginLimits()
    limits.hold_until(10.0)
    limits.hold_until(5.0)
    assert not limits.room(A, 9.9)
    assert limits.room(A, 10.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["open", "answer", "close", "refuse", "leave", "wait"]),
            st.sampled_from([A, B, C]),
            st.floats(0, 40),
        ),
        max_size=60,
    )
)
def test_the_account_stays_right(steps: list[tuple[str, int, float]]) -> None:
    """Never more than the cap is admitted, and whoever has none gets one in the end."""
    limits, now = OriginLimits(), 0.0
    live: dict[int, list[bool]] = {A: [], B: [], C: []}
    for kind, job, seconds in steps:
        now += seconds
        total = sum(map(len, live.values()))
        if kind == "open" and limits.room(job, now):
            cap = limits.cap(now)
            assert cap is None or total < cap
            limits.opened(job)
            live[job].append(False)
        elif kind == "answer" and False in live[job]:
            live[job][live[job].index(False)] = True
            limits.answered()
        elif kind == "close" and live[job]:
            limits.closed(job, answered=live[job].pop())
        elif kind == "refuse":
            limits.refused(job, now, alone=not any(live[job]))
        elif kind == "leave":
            limits.leave(job)
    for each in (A, B, C):
        limits.leave(each)
    if not live[C] and not limits.room(C, now):
        # Those that have more than their share give up, one after the other.
        for job in (A, B) * 40:
            for _ in range(limits.surplus(job, now)):
                limits.closed(job, answered=live[job].pop())
        full = limits.cap(now) or 0
        assert limits.room(C, now) or (
            sum(map(len, live.values())) >= full
            and all(len(live[j]) <= 1 for j in live)
        )
