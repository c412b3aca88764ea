"""``python run.py method=kd …``: see ``python run.py --help``."""

import sys

from distil.cli import main

sys.exit(main(["run", *sys.argv[1:]]))
