"""BLEU as an ``evaluate`` module."""
