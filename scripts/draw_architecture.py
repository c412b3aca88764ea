"""Draw docs/images/architecture.svg: the floors of the code, and the way of one row through them.

    python scripts/draw_architecture.py            # write
    python scripts/draw_architecture.py --check    # exit 1 where the picture is out of date

The floors are those that ``make lint`` holds (pyproject.toml, import-linter); a test looks up every stop.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

FLOORS = {
    7: "wiring",
    6: "what a run leaves",
    5: "engine",
    4: "methods, caches",
    3: "parts",
    2: "the typed config",
    1: "mathematics",
    0: "words",
}
"""Number of a floor in pyproject.toml, and what it holds."""


@dataclass(frozen=True)
class Stop:
    """Where the row comes by, and what it is there."""

    place: str
    """``module:name`` of the code."""
    told: str


ROW = (
    Stop("distil.data.base:DataSource", "a row of a file: text"),
    Stop("distil.data.encode:Encoder", "token ids, a label a token"),
    Stop("distil.data.collate:collate", "(B, T), padded"),
    Stop("distil.engine.windows:WindowedTrainer.get_batch_samples", "a step's micro-batches, counted"),
    Stop("distil.engine.rollouts:generate", "and the student's own answers"),
    Stop("distil.engine.trainer:DistillationTrainer.compute_loss", "terms, each over its tokens"),
    Stop("distil.engine.forward:Forward", "hidden states of scored positions"),
    Stop("distil.head:score", "logits, a chunk at a time"),
    Stop("distil.fused:add_terms", "value and slope of every term"),
    Stop("distil.divergences:forward_kl", "nats a position"),
    Stop("distil.engine.saving:CheckpointedTrainer", "a step, a checkpoint"),
    Stop("distil.results:write_results", "the student's scores"),
)
"""From the file to the gradient and what it leaves, in order."""

TEMPERATURE = (
    Stop("distil.cli:main", "method.temperature=2"),
    Stop("distil.config.schema:MethodConfig", "its type, range and default"),
    Stop("distil.methods.base:Method.terms", "Term(…, temperature)"),
    Stop("distil.losses:Term", "the one name that it has"),
    Stop("distil.fused:add_terms", "asks both models' rows at it"),
    Stop("distil.slopes:Rows.of", "divides the logits by it"),
)
"""From the command line to the divergence."""

LANE, STEP, LEFT, TOP, WIDTH = 30, 34, 12, 118, 640
"""Pixels between two floors, between two stops, and of the whole."""
ROW_COLOUR, TEMPERATURE_COLOUR = "#b4451f", "#2f6690"


def floors() -> dict[str, int]:
    """The floor of each module that pyproject.toml names: below a comment ``# N words``, until the next."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("layers = [", 1)[1].split("\n]", 1)[0]
    found, floor = dict[str, int](), max(FLOORS)
    for line in lines.splitlines():
        if line.strip().startswith("# "):
            floor = int(line.strip().split()[1])
        found |= {module.strip(): floor for module in line.strip().strip('",').split("|")}
    return found


def floor_of(place: str) -> int:
    """The floor of ``module:name``: its module's, or that of the package around it."""
    module, known = place.split(":")[0], floors()
    while module not in known:
        module = module.rpartition(".")[0]
    return known[module]


def _lane(floor: int) -> float:
    return LEFT + (max(FLOORS) - floor + 0.5) * LANE


def _way(stops: tuple[Stop, ...], top: float, colour: str) -> str:
    places = [(_lane(floor_of(stop.place)), top + i * STEP) for i, stop in enumerate(stops)]
    line = " ".join(f"{x:.0f},{y:.0f}" for x, y in places)
    parts = [f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="3"/>']
    text = LEFT + len(FLOORS) * LANE + 16
    for number, ((x, y), stop) in enumerate(zip(places, stops, strict=True), 1):
        module, _, name = stop.place.partition(":")
        parts += [
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="10" fill="{colour}"/>',
            f'<text x="{x:.0f}" y="{y + 4:.0f}" class="number">{number}</text>',
            f'<text x="{text}" y="{y - 2:.0f}" font-weight="600">{escape(stop.told)}</text>',
            f'<text x="{text}" y="{y + 12:.0f}" class="code">{escape(f"{module}  {name}")}</text>',
        ]
    return "\n".join(parts)


def picture() -> str:
    """The SVG."""
    height = TOP + 74 + (len(ROW) + len(TEMPERATURE)) * STEP
    parts = []
    for floor, told in FLOORS.items():
        x = _lane(floor)
        parts.append(
            f'<rect x="{x - LANE / 2 + 1:.0f}" y="{TOP - 10}" width="{LANE - 2}" height="{height - TOP + 2}" '
            f'fill="{"#eef2f5" if floor % 2 else "#e3e9ee"}"/>'
            f'<text transform="translate({x + 4:.0f} {TOP - 16}) rotate(-35)">{floor}  {escape(told)}</text>'
        )
    second = TOP + 40 + len(ROW) * STEP + 34
    text = LEFT + len(FLOORS) * LANE + 16
    for top, title in (
        (TOP + 8, "One row, from its file to the gradient"),
        (second - 28, "One value, temperature"),
    ):
        parts.append(f'<text x="{text}" y="{top}" font-size="15" font-weight="600">{title}</text>')
    parts += [_way(ROW, TOP + 36, ROW_COLOUR), _way(TEMPERATURE, second, TEMPERATURE_COLOUR)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif" font-size="13" fill="#22303c">\n'
        "<title>The floors of the code, and the way of one row and of one value through them</title>\n"
        "<style>.code{font-family:ui-monospace,monospace;font-size:11px;fill:#51626f}.number{font-size:11px;fill:#fff;text-anchor:middle}</style>\n"
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def main() -> int:
    """Write the picture, or with ``--check`` say whether it is up to date."""
    if "--check" in sys.argv[1:]:
        return int(PICTURE.read_text(encoding="utf-8") != picture())
    PICTURE.write_text(picture(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
