"""Data sources and how their rows become scored token sequences."""
