"""The processes of one run, and weights that are cut up over them."""
