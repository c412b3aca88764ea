"""Model cards: the README.md beside every model that is written, whoever writes it.

``brief`` goes beside what runs and merges leave here, ``library`` beside what ``save_student`` writes.
``exported`` is the whole card, which a hub shows; ``subject``, ``scores``, ``making``, ``usage`` its parts.
"""
