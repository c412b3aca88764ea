"""Distil large language models into small ones: one trainer, many methods, honest comparisons."""

import logging
import sys

if sys.platform == "win32":
    raise ImportError("distil-runner runs on Linux and macOS. On Windows, install it in WSL.")

# At import it announces that an optional CPU kernel is absent, which nothing here asks for.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
