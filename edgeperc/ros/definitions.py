"""Definitions of the message types that the library rosbags does not bring along.

They are interfaces, written as `.msg` files have them, without the comments: vision_msgs 4
(https://github.com/ros-perception/vision_msgs, Apache-2.0) and event_camera_msgs
(https://github.com/ros-event-camera/event_camera_msgs, Apache-2.0). That they are the genuine ones
shows in their type hashes, which `tests/test_ros_codec.py` compares.
"""

from __future__ import annotations

DEFINITIONS = {
    "vision_msgs/msg/Point2D": """
float64 x
float64 y
""",
    "vision_msgs/msg/Pose2D": """
vision_msgs/Point2D position
float64 theta
""",
    "vision_msgs/msg/BoundingBox2D": """
vision_msgs/Pose2D center
float64 size_x
float64 size_y
""",
    "vision_msgs/msg/ObjectHypothesis": """
string class_id
float64 score
""",
    "vision_msgs/msg/ObjectHypothesisWithPose": """
vision_msgs/ObjectHypothesis hypothesis
geometry_msgs/PoseWithCovariance pose
""",
    "vision_msgs/msg/Detection2D": """
std_msgs/Header header
vision_msgs/ObjectHypothesisWithPose[] results
vision_msgs/BoundingBox2D bbox
string id
""",
    "vision_msgs/msg/Detection2DArray": """
std_msgs/Header header
vision_msgs/Detection2D[] detections
""",
    "vision_msgs/msg/VisionClass": """
uint16 class_id
string class_name
""",
    "vision_msgs/msg/LabelInfo": """
std_msgs/Header header
vision_msgs/VisionClass[] class_map
float32 threshold
""",
    "event_camera_msgs/msg/EventPacket": """
std_msgs/Header header
uint32 height
uint32 width
uint64 seq
uint64 time_base
string encoding
bool is_bigendian
uint8[] events
""",
}
"""Type -> its definition."""
