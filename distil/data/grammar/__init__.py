"""The grammar of the embedded data set: choices, lexicon, families of instructions and responses."""
