"""A recording as a ROS 2 bag: a folder with its files and the `metadata.yaml` that rosbag2 wants.

    make_bag(Path("drive.mcap"), Path("drive"))     # ros2 bag play drive

Source: rosbag2's metadata, version 9 (https://github.com/ros2/rosbag2, Apache-2.0).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from mcap.reader import make_reader

from edgeperc.errors import ConfigError, DataError
from edgeperc.recording.reader import files_of, is_ours


def make_bag(recording: Path, folder: Path) -> None:
    """Make a new folder of a recording, with hard links to its files where that is possible.

    recording: a file, with the numbered ones that go on from it, or a folder. Raises ConfigError if
    `folder` is there, DataError if a file is not whole.
    """
    files = files_of(recording)
    if not recording.is_dir():
        files += sorted(recording.parent.glob(f"{recording.stem}_[0-9][0-9][0-9][0-9].mcap"))
    if folder.exists():
        raise ConfigError(f"{folder}: is there already", hint="name a new folder")
    parts = [_summary(file) for file in files]
    try:
        folder.mkdir(parents=True)
        for file in files:
            _link(file, folder / file.name)
        (folder / "metadata.yaml").write_text(_metadata(parts))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}") from error


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _summary(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        if not is_ours(stream.read(256)):
            raise DataError(f"{file}: is no recording of edgeperc")
        stream.seek(0)
        try:
            summary = make_reader(stream).get_summary()
        except Exception as error:
            raise DataError(
                f"{file}: is not whole", hint=f"edgeperc record --repair {file}"
            ) from error
    if summary is None or summary.statistics is None:
        raise DataError(f"{file}: is not whole", hint=f"edgeperc record --repair {file}")
    statistics = summary.statistics
    topics = {}
    for channel in summary.channels.values():
        type_ = summary.schemas[channel.schema_id].name
        count = statistics.channel_message_counts.get(channel.id, 0)
        topics[channel.topic, type_, channel.metadata.get("topic_type_hash", "")] = count
    return {
        "path": file.name,
        "start": statistics.message_start_time,
        "length": statistics.message_end_time - statistics.message_start_time,
        "count": statistics.message_count,
        "topics": topics,
    }


def _metadata(parts: list[dict[str, Any]]) -> str:
    counts: dict[tuple[str, str, str], int] = {}
    for part in parts:
        for topic, count in part["topics"].items():
            counts[topic] = counts.get(topic, 0) + count
    start = min(part["start"] for part in parts)
    length = max(part["start"] + part["length"] for part in parts) - start
    lines = [
        "rosbag2_bagfile_information:",
        "  version: 9",
        "  storage_identifier: mcap",
        "  duration:",
        f"    nanoseconds: {length}",
        "  starting_time:",
        f"    nanoseconds_since_epoch: {start}",
        f"  message_count: {sum(part['count'] for part in parts)}",
        "  topics_with_message_count:",
    ]
    for (name, type_, hash_), count in counts.items():
        lines += [
            "    - topic_metadata:",
            f"        name: {_quoted(name)}",
            f"        type: {type_}",
            "        serialization_format: cdr",
            "        offered_qos_profiles: []",
            f"        type_description_hash: {hash_}",
            f"      message_count: {count}",
        ]
    lines += ['  compression_format: ""', '  compression_mode: ""', "  relative_file_paths:"]
    lines += [f"    - {_quoted(part['path'])}" for part in parts]
    lines += ["  files:"]
    for part in parts:
        lines += [
            f"    - path: {_quoted(part['path'])}",
            "      starting_time:",
            f"        nanoseconds_since_epoch: {part['start']}",
            "      duration:",
            f"        nanoseconds: {part['length']}",
            f"      message_count: {part['count']}",
        ]
    lines += ["  custom_data: ~", "  ros_distro: jazzy"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
