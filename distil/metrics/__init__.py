"""Metrics: one file a metric, each a pure function of what was observed."""
