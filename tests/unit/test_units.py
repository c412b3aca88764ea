from __future__ import annotations

import pytest

from distil.system.units import human_bytes


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 bytes"),
        (12, "12 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1540, "1.5 kB"),
        (812e6, "812 MB"),
        (999.4e6, "999 MB"),
        (999.9e6, "1 GB"),
        (16.44e9, "16.4 GB"),
        (1.5e12, "1.5 TB"),
    ],
)
def test_bytes_in_words(amount: float, text: str) -> None:
    assert human_bytes(amount) == text
