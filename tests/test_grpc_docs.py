"""The grpcurl lines of docs/grpc.md, sent by a client that knows nothing but reflection."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import Parse
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from edgeperc.sink import Inventory, SourceInfo
from edgeperc.sinks.grpc import Grpc
from edgeperc.sinks.security import ROLES

from .test_client import label_map
from .test_client_orders import Daemon

DOCS = (Path(__file__).parents[1] / "docs" / "grpc.md").read_text()
COMMANDS = re.findall(r"^grpcurl -plaintext .*/\w+$", DOCS, re.MULTILINE)


@pytest.fixture(scope="module")
def sink() -> Iterator[Grpc]:
    inventory = Inventory(sources=(SourceInfo(name="dvs", driver="twin"),))
    sink = Grpc(listen="127.0.0.1:0", inventory=inventory, daemon=Daemon())
    sink.write(label_map(1))
    yield sink
    sink.close()


def test_there_are_lines_to_check() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_a_line_of_the_docs_is_understood_and_answered(sink: Grpc, command: str) -> None:
    words = shlex.split(command)
    body = words[words.index("-d") + 1] if "-d" in words else "{}"
    service, rpc = words[-1].split("/")
    with grpc.insecure_channel(sink.address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(service).methods_by_name[rpc]
        request = Parse(body, GetMessageClass(method.input_type)(), descriptor_pool=pool)
        kind = channel.unary_stream if method.server_streaming else channel.unary_unary
        call: Any = kind(
            f"/{words[-1]}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        answer = call(request, timeout=30)
        if method.server_streaming:
            answer.initial_metadata()
            sink.write(label_map(2))
            assert next(answer).stamp.seq == 2
            answer.cancel()


def test_the_table_of_roles_names_every_rpc_under_its_role() -> None:
    lines = dict(re.findall(r"^\| `(read|prompt|steer|admin)` \| (.*) \|$", DOCS, re.MULTILINE))
    for path, role in ROLES.items():
        name = path.rpartition("/")[2]
        if name != "ServerReflectionInfo":
            assert f"`{name}`" in lines[role], f"{name} is not in the line of {role}"
