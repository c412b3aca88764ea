"""``python -m distil VERB …``: the command ``distil``, where it is not on the path."""

import sys

from distil.cli import main

if __name__ == "__main__":
    sys.exit(main())
