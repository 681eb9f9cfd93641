"""What waits for one page: newest wins, losses are counted, a slow page gets less."""

from __future__ import annotations

import asyncio

from edgeperc.sinks.web_client import AHEAD, MAX_ANSWERS, Mailbox
from edgeperc.sinks.web_encoder import Key

WIDE: Key = ("frame", "wide", "")
DVS: Key = ("frame", "dvs", "")


def run(story: object) -> None:
    asyncio.run(story)  # type: ignore[arg-type]


def fast() -> Mailbox:
    mailbox = Mailbox()
    mailbox.rate_hz = 1e6
    return mailbox


def test_of_each_stream_the_newest_waits_and_the_others_are_counted() -> None:
    async def story() -> None:
        mailbox = fast()
        for number in range(5):
            mailbox.put(WIDE, b"wide %d" % number)
        mailbox.put(DVS, b"dvs")
        assert {await mailbox.next(), await mailbox.next()} == {b"wide 4", b"dvs"}
        assert (mailbox.sent, mailbox.dropped) == (2, 4)

    run(story())


def test_a_page_that_draws_nothing_gets_no_more_but_answers_and_news() -> None:
    async def story() -> None:
        mailbox = fast()
        for number in range(AHEAD):
            mailbox.put(WIDE, b"%d" % number)
            assert await mailbox.next() == b"%d" % number
        mailbox.put(WIDE, b"late")
        mailbox.put(WIDE, b"newer")
        mailbox.tell(b"old news")
        mailbox.tell(b"news")
        mailbox.say(b"answer")
        assert [await mailbox.next() for _ in range(2)] == [b"answer", b"news"]
        assert await mailbox.next() is None
        mailbox.drawn(1)
        assert await mailbox.next() == b"newer"
        assert mailbox.dropped == 1

    run(story())


def test_a_stream_is_sent_at_the_rate_that_the_page_wants() -> None:
    async def story() -> None:
        mailbox = Mailbox()
        mailbox.rate_hz = 0.1
        mailbox.put(WIDE, b"1")
        assert await mailbox.next() == b"1"
        mailbox.put(WIDE, b"2")
        assert await mailbox.next() is None  # for a second
        mailbox.put(DVS, b"3")
        assert await mailbox.next() == b"3"

    run(story())


def test_what_is_looked_at_no_more_is_forgotten() -> None:
    async def story() -> None:
        mailbox = fast()
        mailbox.put(WIDE, b"wide")
        mailbox.put(DVS, b"dvs")
        mailbox.keep(frozenset({DVS}))
        assert await mailbox.next() == b"dvs"
        assert await mailbox.next() is None

    run(story())


def test_answers_have_an_end() -> None:
    async def story() -> None:
        mailbox = Mailbox()
        for _ in range(MAX_ANSWERS):
            assert not mailbox.is_full
            mailbox.say(b"answer")
        assert mailbox.is_full

    run(story())
