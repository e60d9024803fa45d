"""Logs as JSON lines on standard error, for our own loggers and for gunicorn's."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from gunicorn import glogging  # type: ignore[import-untyped]

from .wire import rfc3339

MAX_RECORD = 8 * 1024
"""Longest message and longest traceback, characters."""
MAX_FACT = 1024
"""Longest text of any other field: some, such as the name of a model, are whatever a client has sent."""


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message and the record's ``facts``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": rfc3339(int(record.created * 1000) * 1_000_000),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:MAX_RECORD],
        }
        for name, fact in getattr(record, "facts", {}).items():
            line[name] = fact[:MAX_FACT] if isinstance(fact, str) else fact
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-MAX_RECORD:]
        return json.dumps(line, default=str)


class ServerLogger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's logger, with our format; it also sets up the ``lading`` loggers of its process."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        for name in ("gunicorn.error", "lading"):
            logger = logging.getLogger(name)
            logger.handlers[:] = [handler]
            logger.propagate = False
            logger.setLevel(self.error_log.level)
        if self.error_log.level == logging.INFO:
            # Of its comings and goings only those who look for a fault want to know.
            self.error_log.setLevel(logging.WARNING)
