"""Devices that are not there: simulators on a pseudo-terminal, with faults on request."""
