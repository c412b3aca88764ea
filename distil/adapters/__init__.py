"""Adapters: one file a PEFT type."""
