"""The bindings: a module or a package for each kind of wire."""
