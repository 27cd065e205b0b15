"""Passwords out of every line: addresses in our messages, in errors of the native libraries and in their log lines.

A camera's address is often `rtsp://user:password@host/...`; it must never reach a terminal, a log file or a report.
Knows nothing of video: it works on text.
"""

from __future__ import annotations

import base64
import logging
import re
import threading
from urllib.parse import unquote, urlsplit

MASK = "***"
_CREDENTIALS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/?#\s'\"]*@", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"(authorization\s*:)[^\r\n]*", re.IGNORECASE)
_SECRET_QUERY = re.compile(
    r"(?P<key>[?&](?:[^=&#\s]*(?:pass|pwd|token|secret|key|auth|sig)[^=&#\s]*)=)[^&#\s'\"]+", re.IGNORECASE
)

_secrets: set[str] = set()
_lock = threading.Lock()
_factory_wrapped = False


def redact(text: str) -> str:
    """`text` without credentials: those inside addresses, Authorization headers, and every secret remembered so far."""
    text = _CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)
    text = _SECRET_QUERY.sub(rf"\g<key>{MASK}", text)
    text = _AUTHORIZATION.sub(rf"\1 {MASK}", text)
    with _lock:
        secrets = sorted(_secrets, key=len, reverse=True)
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def remember_secrets(address: str) -> None:
    """Remember the password in `address`, in each form a library may print it; guard libav's log lines from now on."""
    parts = urlsplit(address)
    if not parts.password:
        return
    user, password = parts.username or "", parts.password
    plain = f"{unquote(user)}:{unquote(password)}"
    forms = {password, unquote(password), base64.b64encode(plain.encode()).decode()}
    with _lock:
        # A password of one or two letters would blank out half of every message; the address forms cover it.
        _secrets.update(form for form in forms if len(form) > 2)
    guard_logging()


def guard_logging() -> None:
    """Redact log records of libav's loggers ("libav.*") before any handler sees them. Doing it twice changes nothing.

    A filter on the parent logger would not see its children's records, so the record factory is where it has to be.
    """
    global _factory_wrapped
    with _lock:
        if _factory_wrapped:
            return
        _factory_wrapped = True
    make_record = logging.getLogRecordFactory()

    def make_redacted(*args: object, **kwargs: object) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        if record.name.partition(".")[0] == "libav":
            record.msg, record.args = redact(record.getMessage()), ()
        return record

    logging.setLogRecordFactory(make_redacted)
