"""``python -m trioxport`` is the command ``trioxport``."""

from trioxport.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
