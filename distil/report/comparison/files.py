"""What a comparison leaves: JSON for machines, CSV for spreadsheets, Markdown for a README."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distil.cards.text import plain
from distil.cards.text import table as markdown_table
from distil.report import words as run_words
from distil.report.comparison import words
from distil.report.comparison.budget import EqualBudget
from distil.report.comparison.compare import Comparison
from distil.report.comparison.differences import KINDS
from distil.report.comparison.html import render
from distil.report.comparison.statistics import Estimate
from distil.report.comparison.table import Cell, Column
from distil.system.files import write_json, write_text

FORMAT = 1
"""Version of the JSON files' layout."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text that starts so for a formula."""


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write ``comparison.json``, ``.csv``, ``.md``, ``.html`` and ``comparison_cost.json`` to ``folder``.

    ``comparison.json`` holds results alone, so that equal results are equal bytes; whatever depends on
    seconds or memory stands in ``comparison_cost.json``. Returns the path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "comparison.json", results(comparison))
    write_json(folder / "comparison_cost.json", costs(comparison))
    write_text(folder / "comparison.csv", as_csv(comparison))
    write_text(folder / "comparison.md", as_markdown(comparison))
    page = folder / "comparison.html"
    write_text(page, render(comparison))
    return page


def results(comparison: Comparison) -> dict[str, Any]:
    """What ``comparison.json`` holds: nothing that a second run of the same jobs would change."""
    return {
        "format": FORMAT,
        "ranked": not comparison.unranked,
        "unranked_because": list(comparison.unranked),
        "swept": list(comparison.swept),
        "groups": [
            {
                "group": group.label,
                "choices": dict(group.choices),
                "baseline": comparison.baselines[group.label],
                "runs": {
                    str(seed): run.path.resolve().name
                    for seed, run in zip(group.seeds, group.runs, strict=True)
                },
            }
            for group in comparison.groups
        ],
        "left_out": [asdict(each) for each in comparison.left_out],
        "differences": [asdict(each) for each in comparison.differences],
        "notes": list(comparison.notes),
        "references": {who: dict(scores) for who, scores in comparison.references.items()},
        "scores": [_column(column) for column in comparison.columns],
        "equal_budget": [_budget(table) for kind, table in comparison.budgets.items() if kind != "seconds"],
    }


def costs(comparison: Comparison) -> dict[str, Any]:
    """What ``comparison_cost.json`` holds: costs, what was held equal, and the curves at equal seconds."""
    return {
        "format": FORMAT,
        "held_equal": {each.kind: each.equal for each in comparison.held},
        "spent": {each.kind: dict(each.means) for each in comparison.held},
        "costs": [_column(column) for column in comparison.costs],
        "equal_budget": [_budget(table) for kind, table in comparison.budgets.items() if kind == "seconds"],
    }


def _budget(table: EqualBudget) -> dict[str, Any]:
    return {
        "kind": table.kind,
        "amount": table.amount,
        "read_on_the_way": table.early,
        "not_finite_in": list(table.lost),
        "scores": [_column(column) for column in table.columns],
    }


def _column(column: Column) -> dict[str, Any]:
    metric = asdict(column.metric)
    return {
        "metric": metric.pop("name"),
        **metric,
        "best": column.best,
        "leader": column.leader,
        "not_separable_from": list(column.rivals),
        "groups": {group: _cell(cell) for group, cell in column.cells.items()},
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "estimate": cell.estimate and asdict(cell.estimate),
        "by_seed": {str(seed): value for seed, value in sorted(cell.by_seed.items())},
        "difference": cell.difference and asdict(cell.difference),
        "verdict": cell.verdict,
    }


def as_csv(comparison: Comparison) -> str:
    """One line a group and number: scores, then costs, then scores at an equal budget."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([
        "kind", "group", *map(_safe, comparison.swept), "metric", "unit", "n", "mean", "low", "high",
        "baseline", "pairs", "difference", "difference_low", "difference_high", "verdict", "best",
    ])  # fmt: skip
    for kind, columns in _tables(comparison):
        for column in columns:
            for group in comparison.groups:
                cell = column.cells[group.label]
                chosen = [_safe(group.choices.get(key, "")) for key in comparison.swept]
                metric = [_safe(column.metric.name), _safe(column.metric.unit)]
                table.writerow([
                    kind, _safe(group.label), *chosen, *metric,
                    *_numbers(cell.estimate),
                    _safe(comparison.baselines[group.label] or ""),
                    *_numbers(cell.difference),
                    cell.verdict, "best" if column.best == group.label else "",
                ])  # fmt: skip
    return text.getvalue()


def _tables(comparison: Comparison) -> Iterator[tuple[str, Sequence[Column]]]:
    yield "score", comparison.columns
    yield "cost", comparison.costs
    for kind, table in comparison.budgets.items():
        yield f"validation at {table.amount:.6g} {kind}", table.columns


def _numbers(estimate: Estimate | None) -> list[Any]:
    if estimate is None:
        return ["", "", "", ""]
    return [estimate.n, estimate.mean, *("" if end is None else end for end in (estimate.low, estimate.high))]


def _safe(value: Any) -> Any:
    """Texts of configs and results as texts: a leading apostrophe keeps a spreadsheet from running them."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def as_markdown(comparison: Comparison) -> str:
    """Tables and what must be said beside them, for a README."""
    parts = [f"# {plain(words.heading(comparison))}", *_said_first(comparison)]
    columns = words.columns_of(comparison)
    parts.append(plain(words.asked_budget(comparison)))
    parts.append(_table(comparison, columns, references=columns is comparison.columns))
    parts.append(words.explanation(comparison))
    parts.append(_bullets(words.verdicts(comparison)))
    if comparison.notes:
        parts += ["## Notes", _bullets(comparison.notes)]
    if comparison.costs:
        parts += ["## Cost", _table(comparison, comparison.costs, False), words.cost_line(comparison)]
    for kind, table in comparison.budgets.items():
        if kind != comparison.budget:
            parts += [
                f"## At equal {kind}",
                plain(words.budget_line(table)),
                _table(comparison, table.columns, False),
            ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"* {plain(sentence)}" for sentence in sentences)


def _said_first(comparison: Comparison) -> Iterator[str]:
    for reason in comparison.unranked:
        yield f"**Not ranked:** {plain(reason)}"
    for each in comparison.differences:
        if each.kind != "swept":
            kind = f"**{KINDS[each.kind]}**" if each.kind == "confound" else KINDS[each.kind].capitalize()
            yield f"{kind}: {plain(each.text)}"
    yield plain(words.evaluated_line(comparison))
    yield plain(words.held_line(comparison))
    for left in comparison.left_out:
        yield f"Left out: {plain(left.run)}, {plain(left.why)}"


def _table(comparison: Comparison, columns: Sequence[Column], references: bool) -> str:
    heads = ["", "n", *(plain(f"{words.title(c)} {words.unit(c)}") for c in columns)]
    lines = [heads]
    if references:
        lines += [_reference(who, scores, columns) for who, scores in comparison.references.items()]
    for group in comparison.groups:
        lines.append([plain(group.label), str(len(group.runs)), *(_shown(c, group.label) for c in columns)])
    if not comparison.unranked and len(comparison.groups) > 1:
        lines.append(
            ["*best*", "", *(f"*{plain(best)}*" if (best := words.best(c)) else "" for c in columns)]
        )
    return markdown_table(lines)


def _reference(who: str, scores: Mapping[str, float | None], columns: Sequence[Column]) -> list[str]:
    values = [(column, scores.get(column.metric.name)) for column in columns]
    return [who, "", *("" if v is None else run_words.score(v, column.metric) for column, v in values)]


def _shown(column: Column, group: str) -> str:
    cell = column.cells[group]
    mean = words.mean(cell, column)
    mean = f"**{mean}** {words.MARK}" if column.best == group else mean
    difference = words.difference(cell, column)
    return f"{mean}<br>{difference} {cell.verdict}".rstrip() if difference else mean
