"""The Sphinx configuration: ``sphinx-build -W docs docs/_build/html``. It fetches nothing."""

import inspect
import os
import re
import subprocess
import sys
from typing import Any

import attrs
from docutils import nodes
from docutils.parsers.rst import Directive

import trioxport

project = "trioxport"
author = "The trioxport authors"
project_copyright = "2026, The trioxport authors"
release = version = trioxport.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"trioxport {release}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100

# A reference into the package has to lead to an entry; one to another project needs the network to be resolved.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!trioxport\.).*"), ("py:class", r"trioxport\._.*")]


class CommandHelp(Directive):
    """The ``--help`` of a command, as the build finds it: ``trioxport call``, or the module after ``python -m``."""

    required_arguments = 1
    optional_arguments = 2

    def run(self) -> list[nodes.Node]:
        program, *command = self.arguments
        done = subprocess.run(
            [sys.executable, "-m", program, *command, "--help"],
            env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
            check=True,
            capture_output=True,
            text=True,
        )
        return [nodes.literal_block(done.stdout, done.stdout, language="text")]


def _shown(value: object) -> str:
    """A constant as the default of a parameter."""
    return f"trioxport.codecs.{value.name}" if hasattr(value, "encode") and hasattr(value, "name") else str(value)


def _readable(
    _app: object, _what: str, _name: str, found: Any, _options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Signatures as they are used: defaults of attrs classes by value, and context managers by what they yield."""

    def default(match: re.Match[str]) -> str:
        value = attrs.fields_dict(found)[match[1]].default
        return "{}" if value == {} else repr(value)

    def made(match: re.Match[str]) -> str:
        field = attrs.fields_dict(found).get(match[1]) if inspect.isclass(found) and attrs.has(found) else None
        if field is None or not isinstance(field.default, attrs.Factory) or field.default.factory is dict:
            return match[0].replace("NOTHING", "{}")
        text = "..." if field.default.takes_self else f"{field.default.factory.__name__}()"
        return match[0].replace("NOTHING", text)

    if signature is not None:
        signature = re.sub(r"attr_dict\['(\w+)'\]\.default", default, signature)
        signature = re.sub(r"<function (\w+) at \w+>", r"\1", signature)  # else Sphinx cannot read the signature
        signature = re.sub(r"(\w+): (?:[^=,\[]|\[[^=]*?\])* = NOTHING", made, signature)
    if signature is not None and callable(found):
        names = vars(inspect.getmodule(inspect.unwrap(found)))
        signature = re.sub(r"(?<== )[A-Z][A-Z_]+\b", lambda match: _shown(names.get(match[0], match[0])), signature)
    if returned is not None and hasattr(found, "__wrapped__"):
        returned = returned.replace("AsyncGenerator[", "AbstractAsyncContextManager[")
    return signature, returned


def setup(app: Any) -> None:
    app.add_directive("command-help", CommandHelp)
    app.connect("autodoc-process-signature", _readable)
