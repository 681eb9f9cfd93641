"""Downloads from real local servers: whole, resumed, damaged, refused and shared."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgeperc import fetch as fetch_module
from edgeperc.config import FileEntry, Input, ModelCard
from edgeperc.errors import ModelError
from edgeperc.fetch import bring, fetch, pull

CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()

# Serves a file with ranges; prints each Range header; with an argument, stops half-way and waits.
SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

content, port, stalls = open(sys.argv[1], "rb").read(), int(sys.argv[2]), len(sys.argv) > 3

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.headers.get("Range"), flush=True)
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start : len(content) // 2] if stalls else content[start:])
        if stalls:
            time.sleep(60)

    def log_message(self, *args):
        pass

server = HTTPServer(("127.0.0.1", port), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class Answers(BaseHTTPRequestHandler):
    """Ranges as they should be; a test replaces what it wants to be wrong."""

    content = CONTENT
    asked: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        self.answer(int(wanted[6:-1]) if wanted else 0)

    def answer(self, start: int) -> None:
        if start >= len(self.content):
            self.send_error(416)
            return
        size = len(self.content)
        headers = {"Content-Length": size - start}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self.say(206 if start else 200, headers, self.content[start:])

    def say(self, status: int, headers: dict[str, object], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up early is what some tests are about."""


Serve = Callable[[type[BaseHTTPRequestHandler]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server with a handler; returns the URL of the file."""
    servers = []

    def start(handler: type[BaseHTTPRequestHandler]) -> str:
        if issubclass(handler, Answers):
            handler.asked = []
        server = Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/network.onnx"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "m" / "network.onnx"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "RETRY_S", 0.01)


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.{SHA256[:12]}.part")


def leave_part(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(content)


def assert_complete(target: Path) -> None:
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("size", [0, len(CONTENT)])
def test_file_arrives_whole_and_is_not_fetched_twice(serve: Serve, target: Path, size: int) -> None:
    url = serve(Answers)
    fetch(url, target, sha256=SHA256, bytes=size)
    fetch(url, target, sha256=SHA256, bytes=size)
    assert_complete(target)
    assert Answers.asked == [None]


def test_file_of_other_content_is_replaced(serve: Serve, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(b"an older version")
    fetch(serve(Answers), target, sha256=SHA256)
    assert_complete(target)


def test_redirect_is_followed(serve: Serve, target: Path) -> None:
    there = serve(Answers)

    class Elsewhere(Answers):
        def answer(self, start: int) -> None:
            self.say(302, {"Location": there, "Content-Length": 0}, b"")

    leave_part(target, CONTENT[:1000])
    fetch(serve(Elsewhere), target, sha256=SHA256)
    assert_complete(target)
    assert Answers.asked == ["bytes=1000-"]


def test_part_is_resumed(serve: Serve, target: Path) -> None:
    leave_part(target, CONTENT[:1_000_000])
    fetch(serve(Answers), target, sha256=SHA256)
    assert_complete(target)
    assert Answers.asked == ["bytes=1000000-"]


def test_part_is_dropped_where_the_server_ignores_ranges(
    tmp_path: Path, serve: Serve, target: Path
) -> None:
    """Python's own file server does."""
    (tmp_path / "network.onnx").write_bytes(CONTENT)
    leave_part(target, CONTENT[:1_000_000])

    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args: object) -> None:
            pass

    fetch(serve(Files), target, sha256=SHA256, bytes=len(CONTENT))
    assert_complete(target)


def test_other_range_than_asked_for_is_not_taken(serve: Serve, target: Path) -> None:
    class Confused(Answers):
        def answer(self, start: int) -> None:
            super().answer(start // 2)

    leave_part(target, CONTENT[:1_000_000])
    fetch(serve(Confused), target, sha256=SHA256)
    assert_complete(target)


@pytest.mark.parametrize("size", [0, len(CONTENT)])
@pytest.mark.parametrize(
    "part",
    [
        pytest.param(CONTENT, id="complete, never renamed"),
        pytest.param(CONTENT + b"more", id="too long"),
        pytest.param(b"\0" * 1_000_000, id="of another version"),
        pytest.param(b"\0" * len(CONTENT), id="of another version, complete"),
    ],
)
def test_whatever_is_in_the_part_the_file_is_right(
    serve: Serve, target: Path, part: bytes, size: int
) -> None:
    leave_part(target, part)
    fetch(serve(Answers), target, sha256=SHA256, bytes=size)
    assert_complete(target)


def test_connection_that_breaks_off_is_taken_up_again(serve: Serve, target: Path) -> None:
    class Tired(Answers):
        def answer(self, start: int) -> None:
            size = len(self.content)
            headers = {"Content-Length": size - start}
            if start:
                headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            self.say(206 if start else 200, headers, self.content[start : start + 700_000])

    fetch(serve(Tired), target, sha256=SHA256)
    assert_complete(target)
    assert len(Tired.asked) == 5


@pytest.mark.parametrize("size", [0, len(CONTENT)])
def test_server_that_tells_no_length_is_understood(serve: Serve, target: Path, size: int) -> None:
    class Chunked(Answers):
        protocol_version = "HTTP/1.1"

        def answer(self, start: int) -> None:
            self.say(200, {"Transfer-Encoding": "chunked", "Connection": "close"}, b"")
            for index in range(0, len(CONTENT), 50_000):
                chunk = CONTENT[index : index + 50_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")

    fetch(serve(Chunked), target, sha256=SHA256, bytes=size)
    assert_complete(target)


def test_server_killed_in_mid_transfer_then_resumed(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "served"
    source.write_bytes(CONTENT)

    def server(port: str, *stalls: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SERVER, str(source), port, *stalls]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    with server("0", "stalls") as first, ThreadPoolExecutor(1) as pool:
        assert first.stdout is not None
        port = first.stdout.readline().strip()
        url = f"http://127.0.0.1:{port}/network.onnx"
        running = pool.submit(fetch, url, target, sha256=SHA256)
        deadline_s = time.monotonic() + 20
        while not (part_of(target).exists() and part_of(target).stat().st_size > 1_000_000):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert not target.exists()
        first.kill()
        with pytest.raises(ModelError, match="cannot be reached") as caught:
            running.result(timeout=30)
    assert "kept" in caught.value.hint
    kept = part_of(target).stat().st_size
    assert part_of(target).read_bytes() == CONTENT[:kept]

    with server(port) as second:
        assert second.stdout is not None
        assert second.stdout.readline().strip() == port
        fetch(url, target, sha256=SHA256)
        second.kill()
        assert second.stdout.read().split() == [f"bytes={kept}-"]
    assert_complete(target)


def test_two_processes_at_once_end_with_one_good_file(serve: Serve, target: Path) -> None:
    class Slow(Answers):
        def answer(self, start: int) -> None:
            time.sleep(0.3)
            super().answer(start)

    url = serve(Slow)
    program = (
        "import sys; from pathlib import Path; from edgeperc.fetch import fetch;"
        "fetch(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])"
    )
    command = [sys.executable, "-c", program, url, str(target), SHA256]
    others = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=60)[1] for process in others]
    assert [process.returncode for process in others] == [0, 0, 0], said
    assert_complete(target)
    assert Slow.asked == [None]


def test_two_threads_at_once_end_with_one_good_file(serve: Serve, target: Path) -> None:
    url = serve(Answers)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fetch(url, target, sha256=SHA256), range(4)))
    assert_complete(target)
    assert Answers.asked == [None]


def test_wrong_content_is_removed_and_said(serve: Serve, target: Path) -> None:
    class Other(Answers):
        content = b"another file"

    with pytest.raises(ModelError, match=f"its sha256 is [0-9a-f]{{64}}, not {SHA256}"):
        fetch(serve(Other), target, sha256=SHA256)
    assert list(target.parent.iterdir()) == []


def test_wrong_size_is_said_before_the_download(serve: Serve, target: Path) -> None:
    with pytest.raises(ModelError, match="has 3000000 bytes, but 3000001 are wanted"):
        fetch(serve(Answers), target, sha256=SHA256, bytes=3_000_001)
    assert list(target.parent.iterdir()) == []


def test_endless_answer_ends(serve: Serve, target: Path) -> None:
    class Endless(Answers):
        def answer(self, start: int) -> None:
            self.say(200, {}, b"")
            try:
                while True:
                    self.wfile.write(bytes(100_000))
            except OSError:
                pass  # the client hung up

    with pytest.raises(ModelError, match="is not the file"):
        fetch(serve(Endless), target, sha256=SHA256, bytes=len(CONTENT))
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "hint"), [(404, "URL"), (403, "URL"), (503, "try again"), (429, "try again")]
)
def test_refusal_is_said_and_what_came_is_kept(
    serve: Serve, target: Path, status: int, hint: str
) -> None:
    class Refuses(Answers):
        def answer(self, start: int) -> None:
            self.send_error(status)

    leave_part(target, CONTENT[:1000])
    with pytest.raises(ModelError, match=f"the server answers {status}") as caught:
        fetch(serve(Refuses), target, sha256=SHA256)
    assert hint in caught.value.hint
    assert part_of(target).read_bytes() == CONTENT[:1000]


def test_nobody_there_is_said(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ModelError, match="cannot be reached: .*refused"):
        fetch(f"http://127.0.0.1:{port}/network.onnx", target, sha256=SHA256)
    assert list(target.parent.iterdir()) == []


def test_something_else_than_http_is_said(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: server.accept()[0].sendall(b"SSH-2.0-x\r\n"))
        url = f"http://127.0.0.1:{server.getsockname()[1]}/network.onnx"
        with pytest.raises(ModelError, match="cannot be reached"):
            fetch(url, target, sha256=SHA256)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "network.onnx", ""])
def test_only_http_is_fetched(url: str, target: Path) -> None:
    with pytest.raises(ModelError, match="only http and https"):
        fetch(url, target, sha256=SHA256)


@pytest.mark.parametrize("sha256", ["", "abc", SHA256.upper()])
def test_nothing_is_fetched_without_a_hash(serve: Serve, target: Path, sha256: str) -> None:
    url = serve(Answers)
    with pytest.raises(ModelError, match="without a sha256"):
        fetch(url, target, sha256=sha256)
    assert Answers.asked == []


def test_full_disk_is_said_before_it_is_full(
    serve: Serve, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda path: free)
    with pytest.raises(ModelError, match="3000000 bytes are to come, but 1000000 are free"):
        fetch(serve(Answers), target, sha256=SHA256)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_disk_that_fills_up_is_said(serve: Serve, target: Path) -> None:
    """Writing to /dev/full fails as writing to a full disk does."""
    target.parent.mkdir(parents=True)
    part_of(target).symlink_to("/dev/full")
    reason = re.escape(os.strerror(errno.ENOSPC))
    with pytest.raises(ModelError, match=f"cannot write .*{reason}"):
        fetch(serve(Answers), target, sha256=SHA256)
    assert not target.exists()


def test_folder_that_cannot_be_made_is_said(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot write"):
        fetch(serve(Answers), tmp_path / "file" / "network.onnx", sha256=SHA256)


def card(*files: FileEntry) -> ModelCard:
    return ModelCard(
        name="m",
        task="semantic",
        summary="",
        licence="",
        source="",
        classes=("road",),
        input=Input(kind="events", represent="voxel-grid", width_px=4, height_px=4, window_us=1),
        files=files,
    )


def test_pull_fetches_all_files_that_have_a_url(serve: Serve, tmp_path: Path) -> None:
    url = serve(Answers)
    pull(
        card(
            FileEntry(path="network.onnx", url=url, sha256=SHA256, bytes=len(CONTENT)),
            FileEntry(path="more/head.onnx", url=url, sha256=SHA256),
            FileEntry(path="beside.onnx"),
        ),
        tmp_path,
    )
    assert (tmp_path / "network.onnx").read_bytes() == CONTENT
    assert (tmp_path / "more" / "head.onnx").read_bytes() == CONTENT
    assert not (tmp_path / "beside.onnx").exists()


def test_pull_without_a_url_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="names no URL"):
        pull(card(FileEntry(path="network.onnx")), tmp_path)


@pytest.mark.parametrize("path", ["../network.onnx", "/tmp/network.onnx", "a/../../x"])
def test_pull_stays_in_its_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(ModelError, match="leads out of its folder"):
        pull(card(FileEntry(path=path, url="http://127.0.0.1:9/", sha256=SHA256)), tmp_path)


def brought_card(sha256: str, *, path: str = "net.onnx") -> ModelCard:
    return ModelCard(
        name="net",
        task="detection",
        summary="",
        licence="",
        source="",
        classes=("a",),
        input=Input(kind="frame", represent="stretch", width_px=8, height_px=8),
        files=(FileEntry(path=path, sha256=sha256),),
    )


def test_a_file_is_brought_by_what_it_holds(tmp_path: Path) -> None:
    mine = tmp_path / "whatever.bin"
    mine.write_bytes(b"a network")
    folder = tmp_path / "home" / "net"
    card = brought_card(hashlib.sha256(b"a network").hexdigest())
    assert bring(card, mine, folder) == folder / "net.onnx"
    assert (folder / "net.onnx").read_bytes() == b"a network"
    assert [path.name for path in folder.iterdir()] == ["net.onnx"]


def test_another_file_is_not_brought(tmp_path: Path) -> None:
    mine = tmp_path / "net.onnx"
    mine.write_bytes(b"another network")
    folder = tmp_path / "home"
    with pytest.raises(ModelError, match="is not a file of model 'net': its sha256 is") as caught:
        bring(brought_card("0" * 64), mine, folder)
    assert f"net.onnx with {'0' * 64}" in caught.value.hint
    assert not folder.exists()
    with pytest.raises(ModelError, match="nowhere: No such file"):
        bring(brought_card("0" * 64), tmp_path / "nowhere", folder)
    with pytest.raises(ModelError, match="names no file by sha256"):
        bring(brought_card(""), mine, folder)
    known = hashlib.sha256(b"another network").hexdigest()
    with pytest.raises(ModelError, match="leads out of its folder"):
        bring(brought_card(known, path="../net.onnx"), mine, folder)


def test_a_disk_that_is_full_leaves_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "net.onnx"
    mine.write_bytes(b"a network")

    def half(_source: Path, target: Path) -> None:
        target.write_bytes(b"a net")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("edgeperc.fetch.shutil.copyfile", half)
    with pytest.raises(ModelError, match="No space left"):
        bring(brought_card(hashlib.sha256(b"a network").hexdigest()), mine, tmp_path / "home")
    assert not list((tmp_path / "home").iterdir())
