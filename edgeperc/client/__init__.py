"""Results of a running daemon, and orders to it, in a few lines of Python.

    import edgeperc.client

    with edgeperc.client.connect("127.0.0.1:50051") as client:
        for received in client.subscribe():
            print(received.result.stamp, received.dropped_before)

What else a `Client` can do: `edgeperc.client.client`.
"""

from edgeperc.client.client import Client, Received, connect
from edgeperc.client.connection import Access, NotYetError

__all__ = ["Access", "Client", "NotYetError", "Received", "connect"]
