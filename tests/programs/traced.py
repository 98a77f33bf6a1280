"""A server on its standard streams with Tracing, which returns its spans on request."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.layers.test_tracing_links import serve_traced
from tests.support.spans import Recorder
from trioxport import serve_transport
from trioxport.layers import Tracing

recorder = Recorder()
layers = [Tracing(recorder.provider)]
trio.run(lambda: serve_transport(serve_traced(recorder), "stdio:", layers=layers))
