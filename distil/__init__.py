"""Distil large language models into small ones: one trainer, many methods, honest comparisons."""
