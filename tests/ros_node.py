"""Our sink as a managed node of a genuine rclpy, in one process with a node that reads it.

Run by an interpreter of .venv-ros, with edgeperc on its path. Prints JSON.
"""

import json
import sys
import time

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from edgeperc.control import DaemonStatus
from edgeperc.packet import Frame, Stamp
from edgeperc.result import LabelMap, ModelRef
from edgeperc.sinks.ros2 import Ros2


class FakeDaemon:
    def status(self):
        return DaemonStatus(version="1", app="test", state="serving", uptime_s=1.0)


def main():
    domain_id = int(sys.argv[1])
    sink = Ros2(daemon=FakeDaemon(), backend="rclpy", domain_id=domain_id, lifecycle=True)
    rclpy.init(domain_id=domain_id)
    node = rclpy.create_node("peer")
    labels, pictures, lenses = [], [], []
    node.create_subscription(CameraInfo, "/edgeperc/wide/camera_info", lenses.append, 5)
    node.create_subscription(Image, "/edgeperc/wide/net/labels", labels.append, 5)
    node.create_subscription(Image, "/edgeperc/wide/image_raw", pictures.append, 5)

    def feed(seconds, until):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not until():
            now = time.monotonic_ns()
            stamp = Stamp(source="wide", seq=0, start_ns=now, end_ns=now)
            picture = np.full((4, 5), 7, np.uint8)
            sink.take(Frame(stamp=stamp, image=picture))
            model = ModelRef(name="net")
            sink.write(LabelMap(stamp=stamp, labels=picture, classes=(), model=model))
            rclpy.spin_once(node, timeout_sec=0.05)

    def call(type_, name, request):
        client = node.create_client(type_, f"/edgeperc/daemon/{name}")
        assert client.wait_for_service(20.0), name
        future = client.call_async(request)
        rclpy.spin_until_future_complete(node, future, timeout_sec=20.0)
        return future.result()

    def change(transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return call(ChangeState, "change_state", request).success

    feed(3.0, lambda: False)
    before = len(labels)
    changed = [change(Transition.TRANSITION_CONFIGURE), change(Transition.TRANSITION_ACTIVATE)]
    feed(20.0, lambda: labels)
    unasked = len(pictures)
    switch = Parameter("image", value=True).to_parameter_msg()
    answer = call(SetParameters, "set_parameters", SetParameters.Request(parameters=[switch]))
    feed(20.0, lambda: pictures and lenses)
    sink.close()
    sink.close()
    told = {
        "before": before,
        "changed": changed,
        "labels": len(labels),
        "unasked": unasked,
        "set": answer.results[0].successful,
        "pictures": len(pictures),
        "lens": [[m.width, m.height, m.k[0], m.distortion_model] for m in lenses[-1:]],
        "data": bytes(pictures[-1].data).hex() if pictures else "",
    }
    print(json.dumps(told), flush=True)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
