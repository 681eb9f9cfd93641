import sys
from pathlib import Path

import pytest

from edgeperc.control import ControlError
from edgeperc.errors import ConfigError
from edgeperc.fleet.orders import LONGEST, ORDERS, answer, refusal, refused
from edgeperc.proto.edgeperc.v1 import control_pb2 as pb

sys.path.insert(0, str(Path(__file__).parent))
from fleet_device import FakeDaemon


def test_status_and_app_are_told():
    daemon = FakeDaemon()
    status = pb.GetStatusResponse.FromString(answer("GetStatus", b"", daemon))
    assert (status.app, status.state) == ("test", pb.GetStatusResponse.STATE_SERVING)
    app = pb.GetConfigResponse.FromString(answer("GetConfig", b"", daemon))
    assert app.toml == daemon.toml


def test_app_is_changed_by_who_has_seen_what_runs():
    daemon = FakeDaemon()
    etag = pb.GetConfigResponse.FromString(answer("GetConfig", b"", daemon)).etag
    request = pb.ApplyConfigRequest(toml="rig = 'other-rig'", etag=etag).SerializeToString()
    answer("ApplyConfig", request, daemon)
    assert daemon.toml == "rig = 'other-rig'"
    with pytest.raises(ControlError, match="has changed"):
        answer("ApplyConfig", request, daemon)
    unseen = pb.ApplyConfigRequest(toml="rig = 'third'").SerializeToString()
    with pytest.raises(ConfigError, match="etag"):
        answer("ApplyConfig", unseen, daemon)


def test_code_is_refused_and_nothing_changes():
    daemon = FakeDaemon()
    for order, kind in (
        ("ValidateConfig", pb.ValidateConfigRequest(toml="kind = './evil.py:Sink'")),
        ("ApplyConfig", pb.ApplyConfigRequest(toml="kind = './evil.py:Sink'", etag="12")),
    ):
        with pytest.raises(ControlError, match="names code"):
            answer(order, kind.SerializeToString(), daemon)
    assert daemon.toml == "rig = 'twin'"


def test_recording_is_begun_and_a_refusal_keeps_its_reason():
    daemon = FakeDaemon()
    request = pb.StartRecordingRequest(name="walk").SerializeToString()
    begun = pb.StartRecordingResponse.FromString(answer("StartRecording", request, daemon))
    assert (begun.recording.name, begun.recording.running) == ("walk", True)
    with pytest.raises(ControlError) as caught:
        answer("StopRecording", b"", daemon)
    back = refused(refusal(caught.value))
    assert isinstance(back, ControlError)
    assert (str(back), back.why) == ("nothing is recorded", "unknown")


@pytest.mark.parametrize(
    ("order", "request_", "says"),
    [
        ("Reboot", b"", "no order 'Reboot'"),
        ("ApplyConfig", b"\xff\xff\xff", "damaged"),
        ("ApplyConfig", b"a" * (LONGEST + 1), "1 MiB"),
    ],
)
def test_what_is_no_order_is_refused(order, request_, says):
    with pytest.raises(ConfigError, match=says):
        answer(order, request_, FakeDaemon())


def test_nonsense_of_a_device_is_a_refusal_all_the_same():
    for text in (b"", b"\n", b"boom", b"\xff\xfe\nx\ny\nz", b"conflict"):
        assert isinstance(refused(text), ConfigError)


def test_orders_are_rpcs_of_the_control_service():
    rpcs = pb.DESCRIPTOR.services_by_name["ControlService"].methods_by_name
    for order, (request, response, _) in ORDERS.items():
        assert rpcs[order].input_type is request.DESCRIPTOR
        assert rpcs[order].output_type is response.DESCRIPTOR
