"""Colours that everyone can tell apart, on a light and on a dark page."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from distil.report.palette import HUES, METHODS, MODELS, TEACHER

# Viénot, Brettel and Mollon 1999: what protanopes and deuteranopes see, in linear RGB.
EYES = (
    np.eye(3),
    np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
)
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
APART = 15
"""Of CIE 1976 colour difference; 2.3 is just noticeable."""
CONTRAST = 3
"""What WCAG asks of graphics."""


def linear(hue: str) -> NDArray[np.float64]:
    channels = np.array([int(hue[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = XYZ @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(("page", "theme"), [("#ffffff", "light"), ("#15181c", "dark")])
def test_hues_stand_out_and_stay_apart(page: str, theme: str) -> None:
    colours = [linear(getattr(hue, theme)) for hue in HUES]
    for colour in colours:
        one, other = sorted(float((XYZ @ each)[1]) for each in (colour, linear(page)))
        assert (other + 0.05) / (one + 0.05) >= CONTRAST
    for a, b in combinations(colours, 2):
        assert min(float(np.linalg.norm(lab(eye @ a) - lab(eye @ b))) for eye in EYES) >= APART


PAGES = [("#ffffff", "light"), ("#15181c", "dark"), ("#ffffff", "terminal"), ("#15181c", "terminal")]


@pytest.mark.parametrize(("page", "theme"), PAGES)
def test_the_teacher_is_no_method_and_no_group(page: str, theme: str) -> None:
    """Nor one of the students: whoever is shown beside the teacher is told from it, by every eye."""
    teacher = linear(getattr(TEACHER, theme))
    one, other = sorted(float((XYZ @ each)[1]) for each in (teacher, linear(page)))
    assert (other + 0.05) / (one + 0.05) >= CONTRAST
    assert set(METHODS.values()) <= set(HUES)
    for shown in (*HUES, *MODELS[1:]):
        colour = linear(getattr(shown, theme))
        assert min(float(np.linalg.norm(lab(eye @ teacher) - lab(eye @ colour))) for eye in EYES) >= APART
