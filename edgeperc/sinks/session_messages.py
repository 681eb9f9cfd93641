"""What is said of a tracking session on the wire, whether a stream holds it or not."""

from __future__ import annotations

from edgeperc.errors import EdgepercError
from edgeperc.proto.codec import as_message, to_message
from edgeperc.proto.edgeperc.v1 import perception_pb2 as pb
from edgeperc.proto.edgeperc.v1 import tracking_pb2 as tracking
from edgeperc.result import Instances
from edgeperc.sessions import Accepted, Add, End, Session
from edgeperc.sinks.mailbox import Published
from edgeperc.sinks.prompts import prompt_of
from edgeperc.sinks.replies import code_of
from edgeperc.tracker import Tracker

MAX_MESSAGE_BYTES = 16 << 20
REASONS = {
    "asked": tracking.SessionClosed.REASON_ASKED,
    "expired": tracking.SessionClosed.REASON_EXPIRED,
    "stopping": tracking.SessionClosed.REASON_STOPPING,
}


def opened_message(tracker: Tracker, session: Session, session_id: str) -> tracking.SessionOpened:
    """What a client may do, and in pictures of which size."""
    sessions = tracker.sessions
    width, height = tracker.picture_px
    return tracking.SessionOpened(
        session_id=session_id,
        source=tracker.source,
        model=as_message(pb.ModelRef, tracker.ref),
        width=width,
        height=height,
        ttl_s=session.ttl_s,
        max_objects=sessions.max_objects,
        max_points=sessions.max_points,
        max_message_bytes=MAX_MESSAGE_BYTES,
    )


def add_of(message: tracking.AddPrompt, tracker: Tracker) -> Add:
    """A prompt as sessions take it. Raises EdgepercError."""
    prompt = prompt_of(
        message, picture_px=tracker.picture_px, most_points=tracker.sessions.max_points
    )
    return Add(message.object_id, prompt)


def accepted_message(said: Accepted, request_id: int = 0) -> tracking.RequestAccepted:
    """A request was carried out."""
    return tracking.RequestAccepted(
        request_id=request_id,
        object_id=said.number,
        instance_id=said.instance,
        stamp=as_message(pb.Stamp, said.stamp) if said.stamp else None,
    )


def refused_message(error: EdgepercError, request_id: int = 0) -> tracking.RequestRefused:
    """It was not, and why."""
    return tracking.RequestRefused(
        request_id=request_id, code=code_of(error).value[0], message=str(error), hint=error.hint
    )


def result_message(session: Session, item: Published, dropped: int) -> pb.Result:
    """A session's own objects in a picture."""
    assert isinstance(item.result, Instances)
    own = session.own(item.result)
    message = to_message(own, pb.MASK_ENCODING_RLE, published_ns=item.unix_ns)
    message.dropped_before = dropped
    return message


def closed_message(why: End) -> tracking.SessionResponse:
    """The session is over. why: not "gone", when nobody hears it."""
    return tracking.SessionResponse(closed=tracking.SessionClosed(reason=REASONS[why]))
