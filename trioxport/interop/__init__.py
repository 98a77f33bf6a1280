"""Adapters for other libraries. Each needs its extra, and is imported explicitly."""
