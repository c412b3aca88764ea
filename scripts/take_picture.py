"""Keep a picture of a page, for the README and the docs.

    python run.py                                                # the report in the README
    python scripts/take_picture.py outputs/default/kd-*/report.html docs/images/report.png
    python run.py -m experiment=compare_methods                  # the comparison
    python scripts/take_picture.py outputs/compare_methods/comparison.html docs/images/comparison.png

Needs chromium (or chrome) on the PATH.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Open the page without a window, and write what is seen."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("page", type=Path, help="an HTML file")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--width", type=int, default=1180, help="pixels")
    parser.add_argument("--height", type=int, default=1480, help="pixels; what lies below is cut off")
    asked = parser.parse_args()
    if not asked.page.is_file():
        sys.exit(f"{asked.page}: no such file.")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"None of {', '.join(BROWSERS)} is on the PATH.")
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    switches += [f"--window-size={asked.width},{asked.height}", f"--screenshot={asked.picture.resolve()}"]
    subprocess.run([browser, *switches, asked.page.resolve().as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main()
