"""A genuine ROS 2 program, run by an interpreter of .venv-ros: JSON in one line, then it ends.

ros_peer.py DOMAIN SECONDS: what a node of rclpy sees of us.
"""

import base64
import json
import sys
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

TOPIC = "/edgeperc/wide/net/labels"


def main():
    rclpy.init(domain_id=int(sys.argv[1]))
    node = rclpy.create_node("peer")
    reliable, lossy, health, lenses = [], [], [], []
    node.create_subscription(CameraInfo, "/edgeperc/wide/camera_info", lenses.append, 5)
    node.create_subscription(Image, TOPIC, reliable.append, 5)
    node.create_subscription(Image, TOPIC, lossy.append, qos_profile_sensor_data)
    node.create_subscription(DiagnosticArray, "/diagnostics", health.append, 5)
    deadline = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
        seen = node.get_node_names_and_namespaces()
        if reliable and lossy and health and lenses and ("daemon", "/edgeperc") in seen:
            break
    publishers = node.get_publishers_info_by_topic(TOPIC)
    images = [reliable[-1], lossy[-1]] if reliable and lossy else []
    told = {
        "middleware": rclpy.get_rmw_implementation_identifier(),
        "nodes": node.get_node_names_and_namespaces(),
        "topics": dict(node.get_topic_names_and_types()),
        "hashes": [str(each.topic_type_hash) for each in publishers],
        "images": [
            [m.header.frame_id, m.width, m.height, base64.b64encode(bytes(m.data)).decode()]
            for m in images
        ],
        "lens": [
            [
                m.header.frame_id,
                m.width,
                m.height,
                m.distortion_model,
                list(m.d),
                list(m.k),
                list(m.p),
            ]
            for m in lenses[-1:]
        ],
        "health": [status.name for m in health[-1:] for status in m.status],
    }
    print(json.dumps(told), flush=True)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
