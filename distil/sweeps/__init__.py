"""Sweeps: many jobs, planned and checked before the first starts, and one answer at their end."""
