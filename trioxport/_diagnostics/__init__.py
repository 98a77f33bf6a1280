"""Texts for people: checks of options, redaction, excerpts, hints, and the log of refusals."""
