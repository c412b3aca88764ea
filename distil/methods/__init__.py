"""Objectives: one file a method, a config dataclass and its terms."""
