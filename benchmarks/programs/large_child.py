"""The child process of the large line: it reads one line and answers shortly, or the other way round."""

import os
import sys

CHUNK = 1024 * 1024
HEAD = b'{"jsonrpc":"2.0","method":"x","params":{"text":"'
TAIL = b'"}}\n'


def main(direction: str, size: int) -> None:
    answer = HEAD + (b"x" * size if direction == "received" else b"") + TAIL
    while chunk := os.read(0, CHUNK):
        if chunk.endswith(b"\n"):
            view = memoryview(answer)
            while view:
                view = view[os.write(1, view) :]


main(sys.argv[1], int(sys.argv[2]))
