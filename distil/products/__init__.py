"""A finished run's student, loaded again: merged, exported, published, evaluated."""
