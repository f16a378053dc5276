"""Rows -> rows with the model's answers: `kit19 generate`, on Ray Data with the server's engine."""
