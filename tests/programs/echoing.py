"""A server on its standard streams, ``echoing.py TARGET``: it answers each request after a while, unless cancelled."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from random import Random

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.soak.cancellations import echo
from trioxport import serve_transport

trio.run(partial(serve_transport, partial(echo, random=Random(1)), sys.argv[1]))
