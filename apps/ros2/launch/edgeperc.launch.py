"""Starts `edgeperc serve` as a ROS 2 node.

ros2 launch edgeperc_ros edgeperc.launch.py app:=events image:=true
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration

ARGUMENTS = {
    "app": ("events", "app by name or path"),
    "namespace": ("/edgeperc", "what topics begin with"),
    "node": ("daemon", "the node's name"),
    "image": ("false", "also publish pictures"),
    "events": ("false", "also publish events"),
    "compressed": ("false", "also publish label maps as PNG"),
    "lifecycle": ("false", "a managed node: silent until it is activated"),
}
TEXTS = ("namespace", "node")


def generate_launch_description():
    """One process; all ends when it ends."""
    declared = [
        DeclareLaunchArgument(name, default_value=value, description=text)
        for name, (value, text) in ARGUMENTS.items()
    ]
    sink = ["sinks.+={kind = 'ros2', backend = 'rclpy'"]
    for name in list(ARGUMENTS)[1:]:
        quote = "'" if name in TEXTS else ""
        sink += [f", {name} = {quote}", LaunchConfiguration(name), quote]
    sink += ["}"]
    command = ["edgeperc", "serve", LaunchConfiguration("app"), "--set", sink]
    process = ExecuteProcess(cmd=command, name="edgeperc", output="screen")
    ended = OnProcessExit(target_action=process, on_exit=[EmitEvent(event=Shutdown())])
    return LaunchDescription([*declared, process, RegisterEventHandler(ended)])
