"""What the trailing metadata of a failed call say: that a daemon said no, and not the network, and
when it is worth while to ask again (google.rpc.RetryInfo).

context.set_trailing_metadata((retry_metadata(14, "no result yet", retry_s=1.0),))
retry_s_of(error.trailing_metadata())   # 1.0, or None where nothing is said
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from google.protobuf.message import DecodeError

from edgeperc.proto.edgeperc.v1 import errors_pb2 as errors

FROM_DAEMON = ("edgeperc-error", "1")
"""Tells what a daemon says from what gRPC says of the network."""
KEY = "grpc-status-details-bin"
TYPE = "google.rpc.RetryInfo"
LONGEST_S = 3600.0
"""Whatever a daemon says, a client is not told to wait for longer."""


def retry_metadata(code: int, message: str, *, retry_s: float) -> tuple[str, bytes]:
    """Key and value of the trailing metadata. code, message: those of the call."""
    status = errors.ErrorStatus(code=code, message=message)
    info = errors.RetryInfo()
    info.retry_delay.FromTimedelta(timedelta(seconds=retry_s))
    status.details.add(type_url=f"type.googleapis.com/{TYPE}", value=info.SerializeToString())
    return KEY, status.SerializeToString()


def retry_s_of(metadata: Iterable[tuple[str, Any]] | None) -> float | None:
    """The pause that trailing metadata ask for; None where they ask for none, or are damaged."""
    for key, value in metadata or ():
        if key == KEY and isinstance(value, bytes):
            try:
                for detail in errors.ErrorStatus.FromString(value).details:
                    if detail.type_url.rpartition("/")[2] == TYPE:
                        delay = errors.RetryInfo.FromString(detail.value).retry_delay
                        return min(max(float(delay.seconds + delay.nanos * 1e-9), 0.0), LONGEST_S)
            except DecodeError:
                return None
    return None
