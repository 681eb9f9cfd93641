"""Calls that are begun and not finished take no thread from others.

    calls = Pool(40, "grpc")
    punctual = Punctual(calls)
    server = grpc.server(calls, interceptors=[punctual, guard])
    punctual.start()

gRPC gives a call a thread of the pool before its request has come, and waits for that as long as
the client likes: some dozens of calls of which only the beginning is sent would take all threads.
So a request has to come within PATIENCE_S, and within HURRY_S while others wait for a thread. What
waits is bounded, and health has threads and a queue of its own.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

PATIENCE_S = 5.0
HURRY_S = 0.25
"""What a lossy network may take between a call's beginning and its request, twice over."""
READ_S = 0.1
"""What it takes to read a request that has come, on a busy machine."""
WAITING_CALLS = 64
"""Calls that may wait for a thread; more are refused, so that a flood fills no memory."""
HEALTH_THREADS = 8
_HEALTH = "/grpc.health.v1.Health/Check"
_TICK_S = 0.1


class Pool(ThreadPoolExecutor):
    """Threads, and how many calls wait for one."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._counting = threading.Lock()
        self.waiting = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See ThreadPoolExecutor."""
        with self._counting:
            self.waiting += 1
        return super().submit(self._begin, fn, *args, **kwargs)

    def _begin(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        with self._counting:
            self.waiting -= 1
        return fn(*args, **kwargs)


class Punctual(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses what there is no room for, and ends calls whose request does not come.

    calls: where all calls run but health checks. Streams from the client, which may wait before
    they say anything, are bounded by seats of their own.
    """

    def __init__(self, calls: Pool) -> None:
        self._calls = calls
        self._health = Pool(HEALTH_THREADS, "grpc health")
        self._refusing = ThreadPoolExecutor(1, thread_name_prefix="grpc refusals")
        self._refused: Counter[str] = Counter()
        self._begun: dict[int, tuple[grpc.ServicerContext, Pool, float, float]] = {}
        self._is_closed = threading.Event()

    def start(self) -> None:
        """Look after what is begun from now on."""
        threading.Thread(target=self._watch, name="grpc punctual", daemon=True).start()

    @property
    def refused(self) -> dict[str, int]:
        """Calls that were turned away or ended, by status code's name."""
        return dict(self._refused)

    def close(self) -> None:
        """End all threads, those of the server's pool, too: gRPC leaves them to the collector."""
        self._is_closed.set()
        for pool in (self._calls, self._health, self._refusing):
            pool.shutdown(wait=False)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Let the call wait for a thread, or refuse it at once."""
        handler = continuation(details)
        if handler is None:
            return None
        pool = self._health if details.method == _HEALTH else self._calls
        if pool.waiting >= WAITING_CALLS:
            self._refused["resource_exhausted"] += 1
            return _in(self._refusing, grpc.stream_stream_rpc_method_handler, _refuse)
        if handler.request_streaming:
            return handler
        return self._punctual(handler, pool)

    def _punctual(self, handler: Any, pool: Pool) -> grpc.RpcMethodHandler:
        """The handler as one that is called before the request is there, and waits for that."""
        arrived_s = time.monotonic()
        answer = handler.unary_stream if handler.response_streaming else handler.unary_unary

        def behave(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._expected(context, pool, arrived_s):
                request = next(requests, None)
            if request is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no request")
            return answer(request, context)

        return _in(
            pool,
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler,
            behave,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    @contextmanager
    def _expected(
        self, context: grpc.ServicerContext, pool: Pool, arrived_s: float
    ) -> Iterator[None]:
        """End the call if this takes too long."""
        self._begun[id(context)] = (context, pool, arrived_s, time.monotonic())
        try:
            yield
        finally:
            del self._begun[id(context)]

    def _watch(self) -> None:
        while not self._is_closed.wait(_TICK_S):
            now_s = time.monotonic()
            for context, pool, arrived_s, begun_s in list(self._begun.values()):
                patience_s = HURRY_S if pool.waiting else PATIENCE_S
                # What has waited for its thread is read for a moment at least: it may be there.
                if now_s - arrived_s > patience_s and now_s - begun_s > READ_S:
                    self._refused["cancelled"] += 1
                    context.cancel()


def _in(pool: ThreadPoolExecutor, kind: Callable[..., Any], behave: Any, **codec: Any) -> Any:
    """A handler whose calls run in a pool of its own."""
    behave.experimental_thread_pool = pool
    return kind(behave, **codec)


def _refuse(_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    context.abort(
        grpc.StatusCode.RESOURCE_EXHAUSTED, f"{WAITING_CALLS} calls wait for a thread already"
    )
    return iter(())
