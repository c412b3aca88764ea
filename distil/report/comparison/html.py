"""``comparison.html``: the whole comparison in one file; no network, and one small script of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.report import palette
from distil.report import words as run_words
from distil.report.comparison import charts, words
from distil.report.comparison.budget import CURVES, KINDS
from distil.report.comparison.compare import Comparison
from distil.report.comparison.differences import KINDS as DIFFERENCES
from distil.report.comparison.groups import Group
from distil.report.comparison.style import group_hues
from distil.report.comparison.svg import definitions
from distil.report.comparison.table import Cell, Column
from distil.report.html import STYLE_DIGEST, digest, sealed, template_environment
from distil.report.run_directory import Sample, mapping

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATES = Path(__file__).parents[1] / "templates"
LOSS = "train/loss"
PRICES = ("train_seconds", "tokens", "peak_memory", "trainable_parameters")
"""What quality can be drawn against."""
OPEN_METRICS = 6
"""Pictures of quality against one cost that are shown at once; the others unfold."""
MANY = 40
"""From so many groups on the others are left out."""


def render(comparison: Comparison) -> str:
    """The page. Every text of data, models and configs is escaped by Jinja; only our own SVG is not."""
    script = (TEMPLATES / "compare.js").read_text(encoding="utf-8")
    hues = group_hues(comparison)
    groups = [
        {
            "label": group.label,
            "index": i,
            "hue": hues[group.label],
            "key": _markup(charts.key(comparison, group.label)),
            "group": group,
        }
        for i, group in enumerate(comparison.groups)
    ]
    page = template_environment().get_template("compare.html.j2")
    return sealed(
        page.render(
            comparison=comparison,
            script=_markup(script),
            # The page allows this script and this style, and no other: markup that slipped in could not run.
            script_digest=digest(script),
            style_digest=STYLE_DIGEST,
            words=words,
            run_words=run_words,
            palette=palette,
            groups=groups,
            definitions=_markup(definitions()),
            kinds=DIFFERENCES,
            tables=list(_tables(comparison)),
            axes=KINDS,
            curves=list(_curves(comparison)),
            open_metrics=OPEN_METRICS,
            frontiers=list(_frontiers(comparison)),
            dots=[(c, _markup(charts.dots(comparison, c))) for c in comparison.columns],
            samples=list(side_by_side(comparison)),
            facts=list(_facts(comparison)),
            sort_value=_sort_value,
        )
    )


def _markup(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)


def _sort_value(cell: Cell) -> str:
    return "" if cell.estimate is None else repr(cell.estimate.mean)


def _tables(comparison: Comparison) -> Iterator[tuple[str, Sequence[Column], str]]:
    """(heading, columns, what stands below): what was asked for first."""
    how = words.explanation(comparison)
    if (asked := words.columns_of(comparison)) is comparison.columns:
        yield "Results", comparison.columns, how
    else:
        yield f"At equal {comparison.budget}", asked, how
        yield "At the end of the runs", comparison.columns, ""
    if comparison.costs:
        yield "Cost", comparison.costs, words.cost_line(comparison)


def _curves(comparison: Comparison) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """(name, picture by axis) of each validation curve; of the training loss where none can be drawn."""
    runs = [run for group in comparison.groups for run in group.runs]
    names = dict.fromkeys(name for run in runs for name in run.curves if name.startswith(CURVES))
    found = [(name, drawn) for name in names if (drawn := _drawn(comparison, name))]
    if not found and (drawn := _drawn(comparison, LOSS)):
        found = [(LOSS, drawn)]
    yield from found


def _drawn(comparison: Comparison, name: str) -> list[tuple[str, Any]]:
    """The pictures of one curve by axis; none where it can be drawn over none of them."""
    pictures = [(kind, _markup(charts.curves(comparison, name, kind))) for kind in KINDS]
    return pictures if any(picture for _, picture in pictures) else []


def _frontiers(comparison: Comparison) -> Iterator[tuple[Column, list[tuple[Column, Any]]]]:
    """(cost, pictures of each metric against it)."""
    metrics = comparison.columns[: OPEN_METRICS if len(comparison.groups) > MANY else None]
    for cost in comparison.costs:
        if cost.metric.name in PRICES:
            drawn = [(column, charts.frontier(comparison, column, cost)) for column in metrics]
            if pictures := [(column, _markup(picture)) for column, picture in drawn if picture]:
                yield cost, pictures


def side_by_side(comparison: Comparison) -> Iterator[tuple[str, list[tuple[str, int | None, str]]]]:
    """(prompt, [(whose, index of the group, text)]) in the order of the runs; of each group its first seed.

    Reference, teacher and untouched student are taken from the first run that has them.
    """
    found: dict[tuple[str, str | None], list[tuple[int, Group, Sample]]] = {}
    for i, group in enumerate(comparison.groups):
        for sample in group.runs[0].samples:
            found.setdefault((sample.prompt, sample.reference), []).append((i, group, sample))
    for (prompt, reference), written in found.items():
        texts: list[tuple[str, int | None, str]] = []
        if reference is not None:
            texts.append(("reference", None, reference))
        for who, told in (
            ("teacher", [sample.teacher for _, _, sample in written]),
            ("student before", [sample.before for _, _, sample in written]),
        ):
            first = next((text for text in told if text is not None), None)
            if first is not None:
                texts.append((who, None, first))
        texts += [(group.label, i, sample.after) for i, group, sample in written if sample.after is not None]
        yield prompt, [(who, i, run_words.with_breaks(text)) for who, i, text in texts]


def _facts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """The line under the title: what all runs share."""
    runs = [run for group in comparison.groups for run in group.runs]
    for group in ("method", "model", "peft", "data"):
        names = {str(mapping(run.config.get(group)).get("name") or "") for run in runs}
        if len(names) == 1 and (name := names.pop()):
            yield group, name
    if evaluated := words.evaluated_line(comparison):
        yield "", evaluated
