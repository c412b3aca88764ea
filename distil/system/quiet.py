"""Libraries that say less for a while: their bars and hints come in dozens and say nothing about this run.

Warnings stay. What is imported here has been imported by whoever loads something inside.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars of transformers inside."""
    from transformers.utils import logging as untyped

    theirs: Any = untyped
    shown = theirs.is_progress_bar_enabled()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            theirs.enable_progress_bar()


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bars of datasets inside; from now on no server is told that a local file was loaded."""
    from datasets import config
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    config.HF_UPDATE_DOWNLOAD_COUNTS = False
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


@contextmanager
def no_hints() -> Iterator[None]:
    """No hints of libraries about kernels and types inside."""
    loggers = [logging.getLogger(name) for name in ("bitsandbytes", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def lossy_logging() -> Iterator[None]:
    """Lines that cannot be written (a full disk, a pipe whose reader has gone) are lost without a word."""
    raises, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = raises
