"""Types of a genuine ROS 2, run by an interpreter of .venv-ros: they read messages, and write them.

stdin: a JSON line for each message: type, its bytes in base64. stdout: for each, the header's time
and frame, if it has one, and the bytes that ROS makes of it; null for a type that this ROS lacks.
"""

import base64
import importlib
import json
import sys

from rclpy.serialization import deserialize_message, serialize_message


def main():
    for line in sys.stdin:
        name, text = json.loads(line)
        package, _, short = name.split("/")
        try:
            type_ = getattr(importlib.import_module(f"{package}.msg"), short)
        except ModuleNotFoundError:
            print("null")
            continue
        message = deserialize_message(base64.b64decode(text), type_)
        stamp = getattr(getattr(message, "header", None), "stamp", None)
        print(
            json.dumps(
                {
                    "stamp": [stamp.sec, stamp.nanosec] if stamp else None,
                    "frame_id": message.header.frame_id if stamp else "",
                    "data": base64.b64encode(serialize_message(message)).decode(),
                }
            )
        )


if __name__ == "__main__":
    main()
