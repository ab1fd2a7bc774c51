"""Metrics and logs: what operators see of a daemon."""
