"""The server's side of the matrix of layers, in a process of its own: ``matrix_peer.py STACK [SEED]`` over stdio."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.layer_matrix import serve_side

logging.disable()
trio.run(serve_side, sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
