"""Distil large language models into small ones: one trainer, many methods, honest comparisons."""

import logging

# At import it announces that an optional CPU kernel is absent, which nothing here asks for.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
