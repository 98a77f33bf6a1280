"""Texts for people: checks of options, redaction, excerpts, hints, the log, and the count of refusals."""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("trioxport")
