"""Doors to other libraries. Each needs its extra, and is imported by who uses it."""
