"""apps/ros2: a package of ROS 2. Its launch file has not been run: no ROS launch installs here."""

import ast
import re
import xml.etree.ElementTree as ET
from pathlib import Path

from edgeperc.changes import changed
from edgeperc.plugin import parameters

PACKAGE = Path(__file__).parents[1] / "apps/ros2"
LAUNCH = PACKAGE / "launch/edgeperc.launch.py"
ORDER = ["name", "version", "description", "maintainer", "license"]
DEPENDS = re.compile(r"(build|buildtool|build_export|exec|test|doc)_depend|depend")


def test_package_xml_keeps_the_rules_of_format_three():
    root = ET.parse(PACKAGE / "package.xml").getroot()
    assert (root.tag, root.get("format")) == ("package", "3")
    tags = [child.tag for child in root]
    assert tags[:5] == ORDER
    assert all(tag in ("export", *ORDER) or DEPENDS.fullmatch(tag) for tag in tags)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", root.findtext("name"))
    assert re.fullmatch(r"\d+\.\d+\.\d+", root.findtext("version"))
    assert "@" in root.find("maintainer").get("email")
    assert root.findtext("license") == "Apache-2.0"
    assert root.findtext("buildtool_depend") == root.findtext("export/build_type") == "ament_cmake"
    assert f"project({root.findtext('name')} NONE)" in (PACKAGE / "CMakeLists.txt").read_text()


def test_launch_file_depends_on_what_the_package_asks_for():
    tree = ast.parse(LAUNCH.read_text())
    wanted = {
        node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    root = ET.parse(PACKAGE / "package.xml").getroot()
    assert wanted <= {each.text for each in root.iter("exec_depend")}


def test_what_is_launched_is_a_sink_that_there_is():
    """The command of the launch file, put together as ROS would, with its own defaults."""
    tree = ast.parse(LAUNCH.read_text())
    (arguments,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ARGUMENTS"
    )
    names = {  # what the file would import, replaced by what it would show
        "DeclareLaunchArgument": lambda name, **_: name,
        "LaunchConfiguration": lambda name: arguments[name][0],
        "ExecuteProcess": lambda cmd, **_: cmd,
        "OnProcessExit": lambda **_: None,
        "EmitEvent": lambda **_: None,
        "Shutdown": lambda: None,
        "RegisterEventHandler": lambda _: None,
        "LaunchDescription": lambda entities: entities,
    }
    body = [node for node in tree.body if not isinstance(node, ast.ImportFrom)]
    exec(compile(ast.Module(body, []), str(LAUNCH), "exec"), names)
    described = names["generate_launch_description"]()
    (command,) = (each for each in described if isinstance(each, list))
    words = ["".join(part) if isinstance(part, list) else part for part in command]
    assert words[:4] == ["edgeperc", "serve", "events", "--set"]
    (sink,) = changed({}, [words[4]])["sinks"]
    assert sink["namespace"] == "/edgeperc"
    assert sink["image"] is False
    assert set(sink) - {"kind"} <= parameters(sink, kind="sink", folder=PACKAGE)
