"""Comparisons: many run directories in, one answer out."""

from distil.report.comparison.compare import Comparison, compare
from distil.report.comparison.files import write_comparison
from distil.report.comparison.terminal import print_comparison

__all__ = ["Comparison", "compare", "print_comparison", "write_comparison"]
