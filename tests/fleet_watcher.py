"""Says in JSON, several times a second, how a fleet is: fleet_watcher.py ROUTER."""

import json
import sys
import time

from edgeperc.errors import DeviceError
from edgeperc.fleet.link import Link, Security
from edgeperc.fleet.watcher import Watcher


def joined(router):
    """A link, as soon as there is a router."""
    while True:
        try:
            return Link(router, security=Security(insecure=True), lease_s=3)
        except DeviceError as error:
            print(error, file=sys.stderr)
            time.sleep(0.5)


def main():
    with joined(sys.argv[1]) as link, Watcher(link, "default") as watcher:
        while True:
            seen = {d.name: [d.is_here, d.results] for d in watcher.devices()}
            print(json.dumps(seen), flush=True)
            time.sleep(0.1)


if __name__ == "__main__":
    main()
