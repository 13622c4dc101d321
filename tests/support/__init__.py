"""Helpers of several tests: the real Collector, a faulty network, certificates."""
