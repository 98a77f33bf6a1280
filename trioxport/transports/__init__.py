"""The bindings: one module for each kind of wire."""
