"""A ring in shared memory: one process writes objects, others read what has not been overwritten.

    ring = Ring()
    block = ring.write(frame)                       # the writer; block says where it lies
    view = RingView(ring.fd, ring.capacity)         # a reader, which was handed `fd`
    frame = view.read(block)                        # a copy of its own, or None: overtaken

Arrays are copied into the ring as they are (pickle's out-of-band buffers); what describes them is
pickled in front. Positions only grow. Before the writer overwrites anything it moves `tail`, the
oldest position that still counts; a reader looks at it after its copy, and throws away what was
overtaken meanwhile: a sequence lock for all blocks at once.

The memory has no name: nothing stands in /dev/shm, the size of /dev/shm does not matter, and the
kernel frees it with the last process that holds it, however that one died.
"""

from __future__ import annotations

import mmap
import os
import pickle
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_BYTES = 4 << 20
PACKETS = 8
"""A ring holds at least so many of its largest packets, once it has grown for one."""

_HEAD = mmap.PAGESIZE  # tail lies at the front of a page of its own
_ALIGN = 64


@dataclass(frozen=True, slots=True)
class Block:
    """Where an object lies. ring: number of the ring. sizes: in bytes, its description first."""

    ring: int
    position: int
    sizes: tuple[int, ...]


class Ring:
    """The writer's end. It grows by a new ring, with a number and `fd` of its own.

    Used from one thread. capacity: bytes that hold objects.
    """

    def __init__(self, capacity: int = MIN_BYTES) -> None:
        self.number, self.fd = -1, -1
        self._next = self._tail = 0
        self._make(capacity)

    def write(self, thing: Any) -> Block:
        """Put an object in; what it takes the place of is lost to slow readers."""
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
        parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
        sizes = tuple(part.nbytes for part in parts)
        needed = sum(map(_aligned, sizes))
        if needed * 4 > self.capacity:
            self.close()
            self._make(needed * PACKETS)
        position = self._room(needed)
        at = position
        for part, size in zip(parts, sizes, strict=True):
            start = at % self.capacity
            self._bytes[start : start + size] = np.frombuffer(part, np.uint8)
            at += _aligned(size)
        self._next = at
        return Block(self.number, position, sizes)

    def close(self) -> None:
        """Let go of the memory; readers keep theirs. May be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _make(self, capacity: int) -> None:
        self.capacity = _aligned(capacity)
        self.number += 1
        self.fd = _anonymous(_HEAD + self.capacity)
        self._next = self._tail = 0
        self._head, self._bytes = _map(self.fd, self.capacity, writable=True)

    def _room(self, needed: int) -> int:
        """Where the next `needed` bytes go, in one piece; readers are told before they go there."""
        position = self._next
        left = self.capacity - position % self.capacity
        if left < needed:
            position += left
        tail = position + needed - self.capacity
        if tail > self._tail:
            self._head[0] = self._tail = tail
            _fence()
        return position


class RingView:
    """A reader's end. Raises ValueError if the memory is smaller than it is said to be."""

    def __init__(self, fd: int, capacity: int) -> None:
        self.capacity = capacity
        self._head, self._bytes = _map(fd, capacity, writable=False)

    def read(self, block: Block) -> Any:
        """A copy of the object, its arrays read-only; None if it was overwritten."""
        if self._head[0] > block.position:
            return None
        start = block.position % self.capacity
        copy = self._bytes[start : start + sum(map(_aligned, block.sizes))].copy()
        _fence()
        if self._head[0] > block.position:
            return None
        copy.flags.writeable = False
        parts, at = [], 0
        for size in block.sizes:
            parts.append(memoryview(copy[at : at + size]))  # type: ignore[arg-type]
            at += _aligned(size)
        return pickle.loads(parts[0], buffers=parts[1:])


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _anonymous(size: int) -> int:
    fd = os.memfd_create("edgeperc-ring", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


def _map(fd: int, capacity: int, *, writable: bool) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """The tail, and the bytes behind it; both end with the last array that uses them."""
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    memory = mmap.mmap(fd, _HEAD + capacity, access=access)
    return np.frombuffer(memory, np.int64, 1), np.frombuffer(memory, np.uint8, offset=_HEAD)


_fences = threading.local()


def _fence() -> None:
    """Let no read or write pass here, as processors other than x86 would let them.

    Taking a lock is a barrier one way, giving it back the other way; twice is both ways.
    """
    lock: threading.Lock | None = getattr(_fences, "lock", None)
    if lock is None:
        lock = _fences.lock = threading.Lock()
    for _ in range(2):
        lock.acquire()
        lock.release()
