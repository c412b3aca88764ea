"""The ways to keep a teacher's answers: one file a format."""
