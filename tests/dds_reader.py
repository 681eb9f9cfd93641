# ruff: noqa: N801  (names of the wire)
"""A DDS program that knows nothing of edgeperc: types by hand, a process of its own, JSON out.

python tests/dds_reader.py DOMAIN WHAT SECONDS: prints a line of JSON for each sample it takes.
"""

import base64
import json
import sys
import time
from dataclasses import dataclass

from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import (
    array,
    bounded_str,
    byte,
    float32,
    float64,
    int32,
    sequence,
    uint8,
    uint16,
    uint32,
)
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

CONFIG = """<CycloneDDS><Domain id="any"><General><AllowMulticast>false</AllowMulticast>
<Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex><SPDPInterval>1s</SPDPInterval>
<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>
<Peers><Peer address="127.0.0.1"/></Peers></Discovery></Domain></CycloneDDS>"""


@dataclass
class Time_(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header_(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
    stamp: Time_
    frame_id: str


@dataclass
class Image_(IdlStruct, typename="sensor_msgs.msg.dds_.Image_"):
    header: Header_
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]


@dataclass
class RegionOfInterest_(IdlStruct, typename="sensor_msgs.msg.dds_.RegionOfInterest_"):
    x_offset: uint32
    y_offset: uint32
    height: uint32
    width: uint32
    do_rectify: bool


@dataclass
class CameraInfo_(IdlStruct, typename="sensor_msgs.msg.dds_.CameraInfo_"):
    header: Header_
    height: uint32
    width: uint32
    distortion_model: str
    d: sequence[float64]
    k: array[float64, 9]
    r: array[float64, 9]
    p: array[float64, 12]
    binning_x: uint32
    binning_y: uint32
    roi: RegionOfInterest_


@dataclass
class VisionClass_(IdlStruct, typename="vision_msgs.msg.dds_.VisionClass_"):
    class_id: uint16
    class_name: str


@dataclass
class LabelInfo_(IdlStruct, typename="vision_msgs.msg.dds_.LabelInfo_"):
    header: Header_
    class_map: sequence[VisionClass_]
    threshold: float32


@dataclass
class KeyValue_(IdlStruct, typename="diagnostic_msgs.msg.dds_.KeyValue_"):
    key: str
    value: str


@dataclass
class DiagnosticStatus_(IdlStruct, typename="diagnostic_msgs.msg.dds_.DiagnosticStatus_"):
    level: byte
    name: str
    message: str
    hardware_id: str
    values: sequence[KeyValue_]


@dataclass
class DiagnosticArray_(IdlStruct, typename="diagnostic_msgs.msg.dds_.DiagnosticArray_"):
    header: Header_
    status: sequence[DiagnosticStatus_]


@dataclass
class Point_(IdlStruct, typename="geometry_msgs.msg.dds_.Point_"):
    x: float64
    y: float64
    z: float64


@dataclass
class Quaternion_(IdlStruct, typename="geometry_msgs.msg.dds_.Quaternion_"):
    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
class Pose_(IdlStruct, typename="geometry_msgs.msg.dds_.Pose_"):
    position: Point_
    orientation: Quaternion_


@dataclass
class PoseWithCovariance_(IdlStruct, typename="geometry_msgs.msg.dds_.PoseWithCovariance_"):
    pose: Pose_
    covariance: array[float64, 36]


@dataclass
class Hypothesis_(IdlStruct, typename="vision_msgs.msg.dds_.ObjectHypothesis_"):
    class_id: str
    score: float64


@dataclass
class HypothesisWithPose_(IdlStruct, typename="vision_msgs.msg.dds_.ObjectHypothesisWithPose_"):
    hypothesis: Hypothesis_
    pose: PoseWithCovariance_


@dataclass
class Point2D_(IdlStruct, typename="vision_msgs.msg.dds_.Point2D_"):
    x: float64
    y: float64


@dataclass
class Pose2D_(IdlStruct, typename="vision_msgs.msg.dds_.Pose2D_"):
    position: Point2D_
    theta: float64


@dataclass
class BoundingBox2D_(IdlStruct, typename="vision_msgs.msg.dds_.BoundingBox2D_"):
    center: Pose2D_
    size_x: float64
    size_y: float64


@dataclass
class Detection2D_(IdlStruct, typename="vision_msgs.msg.dds_.Detection2D_"):
    header: Header_
    results: sequence[HypothesisWithPose_]
    bbox: BoundingBox2D_
    id: str


@dataclass
class Detection2DArray_(IdlStruct, typename="vision_msgs.msg.dds_.Detection2DArray_"):
    header: Header_
    detections: sequence[Detection2D_]


@dataclass
class Gid_(IdlStruct, typename="rmw_dds_common.msg.dds_.Gid_"):
    data: array[uint8, 16]


@dataclass
class NodeEntitiesInfo_(IdlStruct, typename="rmw_dds_common.msg.dds_.NodeEntitiesInfo_"):
    node_namespace: bounded_str[256]
    node_name: bounded_str[256]
    reader_gid_seq: sequence[Gid_]
    writer_gid_seq: sequence[Gid_]


@dataclass
class ParticipantEntitiesInfo_(
    IdlStruct, typename="rmw_dds_common.msg.dds_.ParticipantEntitiesInfo_"
):
    gid: Gid_
    node_entities_info_seq: sequence[NodeEntitiesInfo_]


def image(sample):
    return {
        "stamp": [sample.header.stamp.sec, sample.header.stamp.nanosec],
        "frame_id": sample.header.frame_id,
        "size": [sample.width, sample.height, sample.step],
        "encoding": sample.encoding,
        "data": base64.b64encode(bytes(sample.data)).decode(),
    }


def lens(sample):
    return {
        "stamp": [sample.header.stamp.sec, sample.header.stamp.nanosec],
        "size": [sample.width, sample.height],
        "model": sample.distortion_model,
        "k": list(sample.k),
        "p": list(sample.p),
    }


def info(sample):
    return {"classes": [[row.class_id, row.class_name] for row in sample.class_map]}


def nodes(sample):
    return {
        "gid": bytes(sample.gid.data).hex(),
        "nodes": [
            [
                node.node_namespace,
                node.node_name,
                [bytes(g.data).hex() for g in node.writer_gid_seq],
            ]
            for node in sample.node_entities_info_seq
        ],
    }


def statuses(sample):
    return {"names": [status.name for status in sample.status]}


def boxes(sample):
    return {
        "boxes": [
            [d.bbox.center.position.x, d.bbox.center.position.y, d.bbox.size_x, d.bbox.size_y]
            for d in sample.detections
        ],
        "classes": [d.results[0].hypothesis.class_id for d in sample.detections],
    }


RELIABLE = Policy.Reliability.Reliable(max_blocking_time=0)
KEPT = Policy.Durability.TransientLocal
WHAT = {
    "labels": ("rt/edgeperc/wide/net/labels", Image_, [RELIABLE], image),
    "labels-best-effort": (
        "rt/edgeperc/wide/net/labels",
        Image_,
        [Policy.Reliability.BestEffort],
        image,
    ),
    "pictures": ("rt/edgeperc/wide/image_raw", Image_, [RELIABLE], image),
    "camera-info": ("rt/edgeperc/wide/camera_info", CameraInfo_, [RELIABLE], lens),
    "info": ("rt/edgeperc/wide/net/label_info", LabelInfo_, [RELIABLE, KEPT], info),
    "detections": ("rt/edgeperc/wide/net/detections", Detection2DArray_, [RELIABLE], boxes),
    "diagnostics": ("rt/diagnostics", DiagnosticArray_, [RELIABLE], statuses),
    "nodes": ("ros_discovery_info", ParticipantEntitiesInfo_, [RELIABLE, KEPT], nodes),
}


def main():
    domain_id, what, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    deadline = time.monotonic() + seconds
    domain = Domain(domain_id, CONFIG)
    participant = DomainParticipant(domain_id)
    if what == "endpoints":
        found = BuiltinDataReader(participant, BuiltinTopicDcpsPublication)
        while time.monotonic() < deadline:
            for sample in found.take(N=100):
                data = sample.qos[Policy.Userdata]
                reliable = "Reliable" in str(sample.qos[Policy.Reliability])
                say(
                    topic=sample.topic_name,
                    type=sample.type_name,
                    gid=sample.key.bytes.hex(),
                    user_data=data.data.decode() if data else "",
                    reliable=reliable,
                )
            time.sleep(0.05)
        return domain
    name, type_, policies, show = WHAT[what]
    xcdr1 = Policy.DataRepresentation(use_cdrv0_representation=True)
    kept = Policy.History.KeepLast(20)
    topic = Topic(participant, name, type_)
    reader = DataReader(participant, topic, qos=Qos(*policies, xcdr1, kept))
    while time.monotonic() < deadline:
        for sample in reader.take(N=20):
            say(**show(sample))
        time.sleep(0.05)
    return domain


def say(**what):
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
