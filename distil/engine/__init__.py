"""Training and evaluation of a student: forward passes, rollouts, windows, steps, checkpoints."""
