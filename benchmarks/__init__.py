"""Measurements; each script says what it measures and where its figures go."""
