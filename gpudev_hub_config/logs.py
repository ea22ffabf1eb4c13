"""Long lines of the Hub's log are shortened.

The Hub writes down addresses as long as they come, one that redirects twice, and whoever asks needs
no login for it: some kilobytes of log for one request.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

#: Characters of a message; in one that has more the middle is left out.
MOST = 400
#: How many of them stand at its end, where the Hub says who asked.
_END = 120


class Shortened(logging.Filter):
    """Lets each message through, none of them long. Errors stay whole: somebody looks for their
    cause."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR:
            message = record.getMessage()
            if len(message) > MOST:
                record.msg, record.args = _short(message), None
        return True


def _short(message: str) -> str:
    begin, end = message[: MOST - _END], message[-_END:]
    return f"{begin} [{len(message) - MOST} characters left out] {end}"


#: For `JupyterHub.logging_config`, which is added to what the Hub has by itself.
SHORTENED: Mapping[str, Any] = {
    "filters": {"gpudev_shortened": {"()": f"{__name__}.{Shortened.__name__}"}},
    "handlers": {"console": {"filters": ["gpudev_shortened"]}},
}
