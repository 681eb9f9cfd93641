"""A router and three devices, each with a network stack of its own; a crash and a cut cable.

Needs root and network namespaces. docs/fleet.md has the times that were seen.
"""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PATIENCE_S = 60
ROUTER = "10.77.0.1"
pytestmark = pytest.mark.slow


def run(*words):
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=30)


def may_have_namespaces():
    if os.geteuid() != 0:
        return False
    name = f"edpt{os.getpid()}"
    made = run("ip", "netns", "add", name).returncode == 0
    pair = ("type", "veth", "peer", "name", f"{name}b")
    works = made and run("ip", "-n", name, "link", "add", f"{name}a", *pair).returncode == 0
    run("ip", "netns", "del", name)
    return works


class Town:
    """Namespaces joined by a bridge, and the processes in them; all gone at the end."""

    def __init__(self, stack):
        self.stack = stack
        self.router = f"edp{os.getpid()}r"
        self._namespace(self.router)
        self._ip(self.router, "link", "add", "br0", "type", "bridge")
        self._ip(self.router, "addr", "add", f"{ROUTER}/24", "dev", "br0")
        self._ip(self.router, "link", "set", "br0", "up")

    def house(self, number):
        name = f"edp{os.getpid()}d{number}"
        self._namespace(name)
        peer = ("type", "veth", "peer", "name", "eth0", "netns", name)
        self._ip(self.router, "link", "add", f"v{number}", *peer)
        self._ip(self.router, "link", "set", f"v{number}", "master", "br0", "up")
        self._ip(name, "addr", "add", f"10.77.0.{10 + number}/24", "dev", "eth0")
        self._ip(name, "link", "set", "eth0", "up")
        return name

    def cable(self, number, state):
        self._ip(self.router, "link", "set", f"v{number}", state)

    def start(self, namespace, *words, **options):
        command = ["ip", "netns", "exec", namespace, sys.executable, *words]
        process = subprocess.Popen(command, **options)
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process

    def _namespace(self, name):
        assert run("ip", "netns", "add", name).returncode == 0
        self.stack.callback(run, "ip", "netns", "del", name)
        self._ip(name, "link", "set", "lo", "up")

    def _ip(self, namespace, *words):
        done = run("ip", "-n", namespace, *words)
        assert done.returncode == 0, done.stderr


class Seen:
    """The newest line of the watcher."""

    def __init__(self, process):
        self.now = {}
        self._process = process
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self):
        for line in iter(self._process.stdout.readline, ""):
            self.now = json.loads(line)

    def is_here(self, name):
        return self.now.get(name, [False, 0])[0]

    def results(self, name):
        return self.now.get(name, [False, 0])[1]

    def until(self, condition):
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < PATIENCE_S:
            if condition():
                return time.monotonic() - begun_s
            time.sleep(0.05)
        raise AssertionError(f"it never came; last seen: {self.now}")


def test_crash_and_a_cut_cable_are_noticed_and_what_comes_back_is_heard_again(record_property):
    if not may_have_namespaces():
        pytest.skip("no right to make network namespaces")
    with ExitStack() as stack:
        town = Town(stack)
        where = f"tcp/{ROUTER}:7447"
        listen = ("--listen", where, "--insecure")
        town.start(town.router, "-m", "edgeperc", "fleet", "router", *listen)
        devices = {}
        for number in (1, 2, 3):
            house = town.house(number)
            words = (TESTS / "fleet_device.py", where, f"robot-{number}")
            devices[number] = (house, words, town.start(house, *words))
        watcher = town.start(
            town.router, TESTS / "fleet_watcher.py", where, stdout=subprocess.PIPE, text=True
        )
        seen = Seen(watcher)
        everyone = ("robot-1", "robot-2", "robot-3")
        seen.until(lambda: all(seen.is_here(n) and seen.results(n) for n in everyone))

        house, words, process = devices[1]
        process.kill()
        times = {"killed, missed after": seen.until(lambda: not seen.is_here("robot-1"))}

        town.cable(2, "down")
        times["cut off, missed after"] = seen.until(lambda: not seen.is_here("robot-2"))
        before = seen.results("robot-2")
        assert seen.is_here("robot-3")

        town.cable(2, "up")
        times["cable back, here after"] = seen.until(lambda: seen.is_here("robot-2"))
        times["cable back, heard after"] = seen.until(lambda: seen.results("robot-2") > before)

        before = seen.results("robot-1")
        town.start(house, *words)
        times["started again, heard after"] = seen.until(lambda: seen.results("robot-1") > before)
        before = seen.results("robot-3")
        seen.until(lambda: seen.results("robot-3") > before)
        for what, seconds in times.items():
            record_property(what, round(seconds, 1))
        print({what: round(seconds, 1) for what, seconds in times.items()})
