"""A feed between real processes: what is read is what was written, or it is counted as lost."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeperc.supervise.feed import Feed, Inlet
from edgeperc.supervise.link import Link, pair

WRITER = """
import hashlib, pickle, socket, sys, time
import numpy as np
from edgeperc.packet import Events, Frame, Stamp
from edgeperc.supervise.feed import Feed
from edgeperc.supervise.link import Link

seed, count, pause_s, fds = pickle.loads(bytes.fromhex(sys.argv[1]))
random = np.random.default_rng(seed)
feed = Feed()
for fd in fds:
    feed.add(Link(socket.socket(fileno=fd)))
for seq in range(count):
    stamp = Stamp(source="a", seq=seq, start_ns=seq, end_ns=seq)
    size = int(random.integers(0, 200_000))
    if random.random() < 0.03:
        size = 2_000_000  # for which the ring has to grow
    if seq % 3:
        values = random.integers(0, 255, (max(1, size // 100), 100), np.uint8)
        feed.put(Frame(stamp=stamp, image=values))
        content = values.tobytes()
    else:
        n = size // 13
        t = np.sort(random.integers(0, 1 << 40, n))
        x, y = (random.integers(0, 1 << 16, n).astype(np.uint16) for _ in "xy")
        p = random.integers(0, 2, n).astype(np.bool_)
        feed.put(Events(stamp=stamp, t=t, x=x, y=y, p=p, width_px=9, height_px=9))
        content = b"".join(part.tobytes() for part in (t, x, y, p))
    print(seq, hashlib.sha256(content).hexdigest(), flush=True)
    time.sleep(pause_s)
feed.say("ended", count)
until_s = time.monotonic() + 20
while any(reader.link.waiting for reader in feed._readers) and time.monotonic() < until_s:
    feed.flush()
    time.sleep(0.01)
feed.close()
"""


class Reader:
    """Reads at its own pace, as a process of its own would: the writer is the other one."""

    def __init__(self) -> None:
        link, self.theirs = pair()
        self.inlet = Inlet(link)
        self.seen: dict[int, str] = {}
        self.total = -1

    def step(self) -> None:
        for kind, content in self.inlet.receive(0.02):
            if kind == "ended":
                self.total = content
                continue
            names = ("image",) if hasattr(content, "image") else ("t", "x", "y", "p")
            body = b"".join(getattr(content, name).tobytes() for name in names)
            assert content.stamp.seq not in self.seen
            self.seen[content.stamp.seq] = hashlib.sha256(body).hexdigest()


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), nap_s=st.sampled_from([0.0, 0.3]))
def test_every_packet_is_read_as_it_was_written_or_counted_as_lost(seed: int, nap_s: float) -> None:
    count = 250
    readers = [Reader(), Reader()]
    fds = [reader.theirs.fileno() for reader in readers]
    order = pickle.dumps((seed, count, 0.0, fds)).hex()
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, order], pass_fds=fds, stdout=subprocess.PIPE, text=True
    ) as writer:
        for reader in readers:
            reader.theirs.close()
        deadline_s = time.monotonic() + 60
        awake = set(readers)
        while awake:
            assert time.monotonic() < deadline_s
            for number, reader in enumerate(readers):
                if number == 1:
                    time.sleep(nap_s)  # the second is slow, which costs the first nothing
                if reader in awake:
                    try:
                        reader.step()
                    except EOFError:
                        awake.discard(reader)
        assert writer.stdout
        written = dict(line.split() for line in writer.stdout)
    for reader in readers:
        assert reader.total == count
        assert all(written[str(seq)] == digest for seq, digest in reader.seen.items())
        assert list(reader.seen) == sorted(reader.seen)
        assert len(reader.seen) + reader.inlet.lost == count


def test_a_reader_that_does_not_read_costs_the_writer_no_time_and_is_told_what_it_lost() -> None:
    feed = Feed()
    link, theirs = pair()
    feed.add(Link(theirs))
    started_s = time.monotonic()
    for _ in range(2000):
        feed.put(np.zeros(10, np.uint8))
    assert time.monotonic() - started_s < 5
    feed.say("ended")
    inlet = Inlet(link)
    came = [kind for kind, _ in inlet.receive(0.1)]
    feed.flush()
    came += [kind for kind, _ in inlet.receive(0.1)]
    assert came[-1] == "ended"
    assert 0 < came.count("object") < 2000
    assert came.count("object") + inlet.lost == 2000
    feed.close()


def test_a_reader_that_hangs_up_is_let_go() -> None:
    feed = Feed()
    link, theirs = pair()
    feed.add(Link(theirs))
    link.close()
    feed.put(b"x")
    feed.put(b"x")
    assert feed._readers == []


def test_messages_of_any_size_and_descriptors_arrive_whole_and_in_order() -> None:
    ours, theirs = pair()
    other = Link(theirs)
    read, write = os.pipe()
    sent = [b"", bytes(10), np.random.default_rng(0).bytes(3_000_000), "end"]
    for message in sent:
        ours.send(message, [write] if message == "end" else [])
    received: list[tuple[object, list[int]]] = []
    deadline_s = time.monotonic() + 20
    while len(received) < len(sent):
        assert time.monotonic() < deadline_s
        received += other.receive(0.01)
        ours.flush()
    assert [message for message, _ in received] == sent
    (fd,) = received[-1][1]
    os.write(fd, b"through")
    assert os.read(read, 10) == b"through"
    for each in (fd, read, write):
        os.close(each)
    ours.close()
    with pytest.raises(EOFError):
        other.receive(1.0)


def test_what_may_be_lost_is_lost_whole() -> None:
    ours, theirs = pair()
    other = Link(theirs)
    sent = sum(ours.send((number, bytes(100_000)), must_arrive=False) for number in range(40))
    assert sent < 40
    assert ours.dropped == 40 - sent
    received: list[tuple[object, list[int]]] = []
    while len(received) < sent:
        ours.flush()
        received += other.receive(0.01)
    assert [message[0] for message, _ in received] == list(range(sent))  # type: ignore[index]


def test_a_link_that_was_closed_here_is_gone() -> None:
    ours, theirs = pair()
    ours.close()
    with pytest.raises(EOFError):
        ours.receive()
    with pytest.raises(BrokenPipeError):
        Link(theirs).send("x")
    assert isinstance(theirs, socket.socket)
