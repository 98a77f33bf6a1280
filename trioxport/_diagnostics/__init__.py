"""Diagnostics: checks of options, hints of errors, redaction, the logger, and the log of refusals."""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("trioxport")
