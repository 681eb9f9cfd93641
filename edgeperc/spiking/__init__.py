"""A spiking network on the CPU: spikes as bits, convolutions as sums of table rows."""

from edgeperc.spiking.engine import SpikingEngine

__all__ = ["SpikingEngine"]
