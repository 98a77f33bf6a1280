"""Diagnosis of connections: recordings and what can be seen in them, load, and step by step checks of a server."""
