"""Verbs of the command ``distil`` that load a finished run's student: one file each."""
