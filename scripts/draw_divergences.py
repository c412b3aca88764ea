"""Draw docs/images/divergences.svg: the best student of a small family under each divergence.

    python scripts/draw_divergences.py            # write
    python scripts/draw_divergences.py --check    # exit 1 where the picture is out of date

The teacher has two modes; the student has one, of any place and width. The divergences are the trainer's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from distil.divergences import GeneralizedJSD, forward_kl, reverse_kl

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "divergences.svg"

OUTCOMES = 61
"""Tokens of the little vocabulary, in a row, so that a distribution can be drawn as a curve."""
CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "KL(teacher ‖ student): kd": forward_kl,
    "KL(student ‖ teacher): revkd": reverse_kl,
    "JSD, half and half: gkd": GeneralizedJSD(0.5),
}
WIDTH, HEIGHT, LEFT, TOP, GAP = 376, 110, 12, 64, 58
"""Of one panel, in pixels; panels stand one below the other, so that a phone can show them."""
TALLEST = 0.12
"""Probability at the top of a panel."""
TEACHER, STUDENT = "#c3d0dc", "#b4451f"
FONT = 'font-family="system-ui, sans-serif"'


def bumps(places: list[float], widths: list[float], weights: list[float]) -> Tensor:
    """Log-probabilities (V,) of a mixture of discrete bell curves."""
    token_V = torch.arange(OUTCOMES, dtype=torch.float64)
    curves = [
        (weight * torch.softmax(-(((token_V - place) / width) ** 2) / 2, dim=0))
        for place, width, weight in zip(places, widths, weights, strict=True)
    ]
    return torch.stack(curves).sum(0).log()


def family() -> tuple[Tensor, list[tuple[float, float]]]:
    """Every student: log-probabilities (N, V) of single bell curves, and the place and width of each."""
    shapes = [(place / 4, width / 4) for place in range(241) for width in range(8, 90)]
    token_V = torch.arange(OUTCOMES, dtype=torch.float64)
    place_N1, width_N1 = torch.tensor(shapes, dtype=torch.float64).T[..., None]
    return torch.log_softmax(-(((token_V - place_N1) / width_N1) ** 2) / 2, dim=-1), shapes


def best(divergence: Callable[[Tensor, Tensor], Tensor]) -> tuple[int, float]:
    """Which student of the family is nearest to the teacher, and how near (nats)."""
    student_NV, _ = family()
    value_N = divergence(teacher().expand_as(student_NV), student_NV)
    nearest = int(value_N.argmin())
    return nearest, float(value_N[nearest])


def teacher() -> Tensor:
    """The teacher's log-probabilities: 65 % around token 18, 35 % around token 43."""
    return bumps([18, 43], [3.5, 4.5], [0.65, 0.35])


def curve(log_V: Tensor) -> str:
    """The points of an SVG path through a distribution."""
    step = WIDTH / (OUTCOMES - 1)
    points = [(i * step, HEIGHT * (1 - p / TALLEST)) for i, p in enumerate(log_V.exp().tolist())]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def panel(title: str, divergence: Callable[[Tensor, Tensor], Tensor], top: int) -> str:
    """One divergence: teacher, and its best student."""
    student_NV, shapes = family()
    nearest, value = best(divergence)
    place, width = shapes[nearest]
    says = f"around token {place:.0f}, width {width:.1f}: {value:.2f} nats"
    return (
        f'<g transform="translate({LEFT} {top})">'
        f'<text y="-14" {FONT} font-size="13" font-weight="600" fill="#222">{title}</text>'
        f'<polygon points="0,{HEIGHT} {curve(teacher())} {WIDTH},{HEIGHT}" fill="{TEACHER}"/>'
        f'<polyline points="{curve(student_NV[nearest])}" fill="none" stroke="{STUDENT}" stroke-width="2.5"/>'
        f'<line y1="{HEIGHT}" x2="{WIDTH}" y2="{HEIGHT}" stroke="#555"/>'
        f'<text y="{HEIGHT + 18}" {FONT} font-size="12" fill="#444">{says}</text></g>'
    )


def picture() -> str:
    """The whole SVG."""
    full = TOP + len(CASES) * (HEIGHT + GAP) - 26
    panels = [
        panel(title, divergence, TOP + i * (HEIGHT + GAP))
        for i, (title, divergence) in enumerate(CASES.items())
    ]
    legend = (
        f'<g {FONT} font-size="12" fill="#444">'
        f'<rect x="{LEFT}" y="12" width="14" height="12" fill="{TEACHER}"/>'
        f'<text x="{LEFT + 20}" y="22">teacher</text>'
        f'<line x1="{LEFT + 84}" x2="{LEFT + 100}" y1="18" y2="18" stroke="{STUDENT}" stroke-width="2.5"/>'
        f'<text x="{LEFT + 106}" y="22">the nearest student with one bump</text></g>'
    )
    title = "A teacher with two modes, and the nearest student with one mode under each divergence"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * LEFT + WIDTH} {full}" role="img">'
        f"<title>{title}</title>\n"
        f'<rect width="100%" height="100%" rx="6" fill="#fff"/>\n{legend}\n'
        + "\n".join(panels)
        + "\n</svg>\n"
    )


def main() -> int:
    """Write the picture, or with --check say whether it is up to date."""
    if "--check" in sys.argv[1:]:
        current = PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == picture()
        print("up to date" if current else f"{PICTURE.name} is out of date: make docs")
        return 0 if current else 1
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
