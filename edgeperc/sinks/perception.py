"""`edgeperc.v1.PerceptionService`: what the pipelines say, to whoever subscribes or asks."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import grpc

from edgeperc.errors import ConfigError, DataError
from edgeperc.packet import Frame, Stamp
from edgeperc.proto.codec import as_message, to_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import perception_pb2_grpc as pb_grpc
from edgeperc.result import Detections, Instances, LabelMap, Result, SearchMap
from edgeperc.sessions import RefusedError
from edgeperc.sink import Inventory
from edgeperc.sinks.grpc_standard import Seats
from edgeperc.sinks.mailbox import (
    MAX_DEPTH_IMAGES,
    Mailbox,
    Published,
    Stream,
    delivery_options,
)
from edgeperc.sinks.models import LoadedModel, LoadedModels
from edgeperc.sinks.pictures import picture_of
from edgeperc.sinks.prompts import prompts_of
from edgeperc.sinks.replies import BytesOf, answered, fail, its_turn, still_wanted
from edgeperc.sinks.security import LOOPBACK_PEERS
from edgeperc.sinks.shots import Shots
from edgeperc.sinks.waiting import Waiting

SERVICE = pb.DESCRIPTOR.services_by_name["PerceptionService"].full_name
KINDS: dict[type, pb.ResultKind] = {
    LabelMap: pb.RESULT_KIND_LABEL_MAP,
    Detections: pb.RESULT_KIND_DETECTIONS,
    Instances: pb.RESULT_KIND_INSTANCES,
    SearchMap: pb.RESULT_KIND_SEARCH_MAP,
}


@dataclass(frozen=True, slots=True)
class Wish:
    """Which results a client wants; empty is all."""

    source: str
    kinds: frozenset[pb.ResultKind]
    model: str = ""

    def fits(self, result: Result) -> bool:
        """Whether it is one of them."""
        return (
            self.source in ("", result.stamp.source)
            and self.model in ("", result.model.name)
            and (not self.kinds or KINDS[type(result)] in self.kinds)
        )


class Perception(pb_grpc.PerceptionServiceServicer):  # type: ignore[misc]
    """The rpcs. Each Subscribe holds a mailbox that `publish` fills.

    models: for Segment. streams, asking: how many may subscribe, and run a network, at a time.
    waiting: says why there is nothing yet.
    """

    def __init__(
        self,
        inventory: Inventory,
        models: LoadedModels,
        *,
        streams: Seats,
        asking: Seats,
        waiting: Waiting,
    ) -> None:
        self._inventory, self._models, self._waiting = inventory, models, waiting
        self._seats, self._asking = streams, asking
        self.shots = Shots()
        self._asked = itertools.count()
        self._mailboxes: dict[Mailbox, Wish] = {}
        self._newest: dict[Stream, Published] = {}
        self._dropped = 0
        self._lock = threading.Lock()

    def publish(self, result: Result) -> None:
        """Hand it to whoever wants it; never blocks."""
        item = Published(result, self.shots.of(result))
        with self._lock:
            self._newest.pop(item.stream, None)  # the newest comes last
            self._newest[item.stream] = item
            wanting = [box for box, wish in self._mailboxes.items() if wish.fits(result)]
        for mailbox in wanting:
            mailbox.put(item)

    def close(self) -> None:
        """End all streams, once they have sent what waits."""
        with self._lock:
            for mailbox in self._mailboxes:
                mailbox.close()

    def counts(self) -> dict[str, int]:
        """Subscribers now, and results that they were too slow for, or wanted no more often."""
        with self._lock:
            return {"clients": len(self._mailboxes), "dropped": self._dropped}

    def add_to(self, server: grpc.Server) -> None:
        """Serve it. Results go out as bytes, made once for all subscribers of an encoding."""
        pb_grpc.add_PerceptionServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self, BytesOf(server, "Subscribe")
        )

    def Subscribe(  # noqa: N802
        self, request: pb.SubscribeRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Results from now on, serialized."""
        wish = self._wish(request.source, request.kinds, context)
        encoding = encoding_for(request.encoding, context)
        mailbox = _mailbox(request.delivery, context, images=request.include_image)
        seeing = self.shots.wanted() if request.include_image else nullcontext()
        with self._seats.taken(context), seeing, self._filled(mailbox, wish):
            if not context.add_callback(mailbox.close):  # wakes this thread when the client goes
                return
            context.send_initial_metadata(())  # tells the client that it misses nothing from now
            while (taken := mailbox.take()) is not None and context.is_active():
                item, dropped = taken
                self._dropped += dropped
                data = item.wire(encoding, dropped)
                yield data + self._image(item) if request.include_image else data

    def GetLatest(  # noqa: N802
        self, request: pb.GetLatestRequest, context: grpc.ServicerContext
    ) -> pb.GetLatestResponse:
        """The newest result that fits."""
        wish = self._wish(request.source, request.kinds, context, model=request.model)
        encoding = encoding_for(request.encoding, context)
        if request.include_image:
            self.shots.linger()
        with self._lock:
            fitting = [item for item in self._newest.values() if wish.fits(item.result)]
        if not fitting:
            said = self._waiting.said()
            why = f": {said}" if said else ""
            fail(context, grpc.StatusCode.UNAVAILABLE, f"no such result has come yet{why}")
        newest = fitting[-1]
        answer = pb.GetLatestResponse(result=newest.message(encoding))
        if request.include_image:
            answer.result.MergeFromString(self._image(newest))
        return answer

    def Segment(  # noqa: N802
        self, request: pb.SegmentRequest, context: grpc.ServicerContext
    ) -> pb.SegmentResponse:
        """What a model says of a picture of the client's."""
        encoding = encoding_for(request.encoding, context)
        with self._asking.taken(context), answered(context):
            model = self._model(request.model)
            image = picture_of(request)
            stamp = Stamp(source="", seq=next(self._asked), start_ns=0, end_ns=0)
            frame = Frame(stamp=stamp, image=image)
            result: Result
            if model.takes_prompts:
                prompts = prompts_of(
                    request.prompts,
                    picture_px=(image.shape[1], image.shape[0]),
                    most_points=model.prompted.max_points,
                )
                with its_turn(model.lock, context):
                    go_on = partial(still_wanted, context)
                    result = model.prompted.answer(frame, prompts, go_on=go_on)
            elif request.prompts:
                raise DataError(f"model '{model.name}' takes no prompts", hint="leave them out")
            else:
                with its_turn(model.lock, context):
                    result = model.answer(frame)
            published_ns = time.time_ns()
            return pb.SegmentResponse(
                result=to_message(result, encoding, published_ns=published_ns)
            )
        raise AssertionError("abort raises")

    def ListSources(  # noqa: N802
        self, request: pb.ListSourcesRequest, context: grpc.ServicerContext
    ) -> pb.ListSourcesResponse:
        """The sensors."""
        sources = self._inventory.sources
        return pb.ListSourcesResponse(sources=[as_message(pb.Source, source) for source in sources])

    def ListModels(  # noqa: N802
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """The networks of the pipelines."""
        models = self._inventory.models
        return pb.ListModelsResponse(models=[as_message(pb.ModelRef, model) for model in models])

    def _model(self, name: str) -> LoadedModel:
        """One that may be asked. Raises RefusedError, which says so if it may be one soon."""
        try:
            return self._models.get(name)
        except RefusedError as error:
            if error.why == "unknown":
                self._waiting.check(name)
            raise

    def _image(self, item: Published) -> bytes:
        """What a result was made from, to be put behind its message; nothing if not at hand."""
        shot = item.shot or self.shots.of(item.result)  # the picture may have come later
        return shot.wire if shot else b""

    @contextmanager
    def _filled(self, mailbox: Mailbox, wish: Wish) -> Iterator[None]:
        with self._lock:
            self._mailboxes[mailbox] = wish
        try:
            yield
        finally:
            with self._lock:
                del self._mailboxes[mailbox]

    def _wish(
        self,
        source: str,
        kinds: Sequence[pb.ResultKind],
        context: grpc.ServicerContext,
        *,
        model: str = "",
    ) -> Wish:
        known = [each.name for each in self._inventory.sources]
        if source and source not in known:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"no source '{source}'; there are: {', '.join(known) or 'none'}",
            )
        for kind in kinds:
            if kind not in KINDS.values():
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"kind is {kind}")
        return Wish(source, frozenset(kinds), model)


def encoding_for(wanted: pb.MaskEncoding, context: grpc.ServicerContext) -> pb.MaskEncoding:
    """Encoding that the client gets; unless it says, RAW on this host, where copying is cheap."""
    if wanted not in pb.MaskEncoding.values():
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"encoding is {wanted}")
    if wanted != pb.MASK_ENCODING_UNSPECIFIED:
        return wanted
    on_this_host = context.peer().startswith(LOOPBACK_PEERS)
    return pb.MASK_ENCODING_RAW if on_this_host else pb.MASK_ENCODING_ZSTD


def _mailbox(
    delivery: pb.DeliveryPolicy, context: grpc.ServicerContext, *, images: bool
) -> Mailbox:
    """Build what the client asks for; abort with INVALID_ARGUMENT if that is out of range."""
    try:
        mailbox = Mailbox(**delivery_options(delivery))
        if images and (mailbox.depth or 0) > MAX_DEPTH_IMAGES:
            raise ConfigError(
                f"depth is {mailbox.depth}, must be at most {MAX_DEPTH_IMAGES} with include_image"
            )
        return mailbox
    except ConfigError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        raise AssertionError("abort raises") from error
