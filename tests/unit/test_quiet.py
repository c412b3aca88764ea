"""Libraries are quiet for a while, and then as loud as they were."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as untyped

from distil.system.quiet import no_hints, quiet_datasets, quiet_transformers

theirs: Any = untyped
LIBRARIES: dict[str, tuple[Any, ...]] = {
    "transformers": (
        quiet_transformers,
        theirs.is_progress_bar_enabled,
        theirs.enable_progress_bar,
        theirs.disable_progress_bar,
    ),
    "datasets": (
        quiet_datasets,
        lambda: not are_progress_bars_disabled(),
        enable_progress_bars,
        disable_progress_bars,
    ),
}


@pytest.mark.parametrize("loud", [True, False])
@pytest.mark.parametrize("library", LIBRARIES)
def test_bars_are_as_before(library: str, loud: bool) -> None:
    """Also where what goes on inside fails."""
    quiet, shown, enable, disable = LIBRARIES[library]
    was = shown()
    try:
        (enable if loud else disable)()

        @quiet()
        def fails() -> None:
            assert not shown()
            raise KeyError

        with pytest.raises(KeyError):
            fails()
        assert shown() is loud
    finally:
        (enable if was else disable)()


def test_hints_are_as_before() -> None:
    logger = logging.getLogger("transformers")
    before = logger.level
    with no_hints():
        assert not logger.isEnabledFor(logging.WARNING)
    assert logger.level == before
