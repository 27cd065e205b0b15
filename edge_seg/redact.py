"""Remove passwords from every line: addresses in our messages, in native libraries' errors and in their log lines.

A camera's address is often `rtsp://user:password@host/...`; it must never reach a terminal, a log file or a report.
Knows nothing of video: it works on text. In our own messages secrets stand in addresses alone, where they are known by
their place; a library may print them anywhere, so its words are searched for every secret remembered.
"""

from __future__ import annotations

import base64
import logging
import re
import threading
from collections import OrderedDict
from urllib.parse import unquote, urlsplit

MASK = "***"
# Up to the @ before the host; past a slash only if no port follows the colon, as in a password with an unescaped slash.
# One slash is a slip, or what `Path` leaves of two; a single letter before it is a drive.
_CREDENTIALS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]+:/{1,3})(?:[^/?#\s'\"]+|[^/?#\s'\"@:]*:(?!\d+(?:[/?#]|$))[^\s'\"]*)@", re.IGNORECASE
)
_AUTHORIZATION = re.compile(r"(authorization\s*:)[^\r\n]*", re.IGNORECASE)
# Fields that hold a secret: `?token=...&` anywhere, and within addresses also in the path, where some cameras put them
# (`/user=admin_password=..._channel=1`); outside addresses that may be a folder's name. Masked values are not matched.
_WORDS = r"(?:pass|pwd|psw|pw|pas|pin|token|jwt|secret|cred|key|auth|sig|hash|session)"
_VALUE = r"(?P<value>(?!\*\*\*)[^&;#/\s'\"]+?)(?=_[a-z]+=|[&;#/\s'\"]|[:.](?:\s|$)|$)"
# Of a query, a value may hold slashes, as base64 does, and quotes; a line's own may follow it.
_QUERY_VALUE = r"(?P<value>(?!\*\*\*)[^&#\s]+?)(?=['\"]?[:.,]?['\"]?(?:[&#\s]|$))"
_QUERY_FIELD = re.compile(rf"(?P<key>[?&][^=&;/_#\s]*{_WORDS}[^=&;/_#\s]*=){_QUERY_VALUE}", re.IGNORECASE)
_ADDRESS_FIELD = re.compile(rf"(?P<key>[?&;/_][^=&;/_#\s]*{_WORDS}[^=&;/_#\s]*=){_VALUE}", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE)
# On many RTMP servers the stream's name is also the key to publish under it. In the other pattern, letters mixed with
# digits tell a signature (`?st=`, `?h=`) from a plain value (`?h=480` is a height).
_PLAYED = re.compile(
    r"(?P<key>rtmps?://[^/\s'\"]+/(?:[^/\s'\"]*/)*)(?P<value>(?!\*\*\*)[^/\s'\"?;,]+?)(?=[\s'\"?;,]|[:.](?:\s|$)|$)",
    re.IGNORECASE,
)
_MIXED = r"(?=[^&\s]*\d)(?=[^&\s]*[a-z])"
_SIGNATURE = re.compile(rf"(?P<key>[?&](?:st|h|e|code)=){_MIXED}(?P<value>[^&;#/\s'\"]{{8,}})", re.IGNORECASE)
_IN_ADDRESSES = (_ADDRESS_FIELD, _PLAYED, _SIGNATURE)
# libav takes RTMP options after a space in the address; `playpath` is the stream's name.
_WITH_OPTIONS = re.compile(r"rtmps?://[^\s'\"]+(?:\s+\w+=[^\s'\"]+)+", re.IGNORECASE)
_OPTION = re.compile(rf"(?P<key>\s(?:playpath|[^=\s]*{_WORDS}[^=\s]*)=)(?P<value>(?!\*\*\*)\S+)", re.IGNORECASE)
# Other values are remembered only if they look random: a plain word or number may be in any line.
_RANDOM = re.compile(r"(?=.*\d)(?=.*[a-z]).{8,}", re.IGNORECASE)
_PASSWORD = re.compile(r"(?:pass(?:word|wd|phrase)?|pwd|pw|pas|secret|[?&;/_]pin)=$", re.IGNORECASE)
# Shorter ones, masked everywhere, would garble messages; within an address they are masked all the same.
_SHORTEST_SECRET = 3
# The latest ones: a program may open signed addresses for years.
_MOST_SECRETS = 500

_secrets: OrderedDict[str, None] = OrderedDict()
_lock = threading.Lock()
_factory_wrapped = False


def redact(text: str) -> str:
    """`text` with credentials masked in addresses and in Authorization headers, and otherwise as it is."""
    text = _CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)
    text = _QUERY_FIELD.sub(rf"\g<key>{MASK}", text)
    text = _WITH_OPTIONS.sub(lambda found: _OPTION.sub(rf"\g<key>{MASK}", found[0]), text)
    text = _ADDRESS.sub(_masked, text)
    return _AUTHORIZATION.sub(rf"\1 {MASK}", text)


def redact_foreign(text: str) -> str:
    """A library's words, with the secrets remembered masked too, wherever they stand."""
    text = redact(text)
    with _lock:
        secrets = sorted(_secrets, key=len, reverse=True)
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def _masked(address: re.Match[str]) -> str:
    text = address[0]
    for pattern in _IN_ADDRESSES:
        text = pattern.sub(rf"\g<key>{MASK}", text)
    return text


def remember_secrets(address: str) -> None:
    """Remember the secrets in `address`, in each form a library may print, and redact libav's log lines from now on."""
    parts = urlsplit(address)
    fields = {one["key"]: one["value"] for one in _ADDRESS_FIELD.finditer(address)}
    secrets = {value for key, value in fields.items() if _PASSWORD.search(key)}
    maybe = {one["value"] for pattern in (_PLAYED, _SIGNATURE) for one in pattern.finditer(address)}
    secrets |= {value for value in (maybe | set(fields.values())) if _RANDOM.match(value)}
    secrets |= {one["value"] for one in _OPTION.finditer(address)}
    forms = secrets | {unquote(secret) for secret in secrets}
    if parts.password:
        plain = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
        forms |= {parts.password, unquote(parts.password), base64.b64encode(plain.encode()).decode()}
    with _lock:
        for form in forms:
            if len(form) >= _SHORTEST_SECRET:
                _secrets[form] = None
                _secrets.move_to_end(form)
        while len(_secrets) > _MOST_SECRETS:
            _secrets.popitem(last=False)
    guard_logging()


def guard_logging() -> None:
    """Redact log records of libav's loggers ("libav.*") before any handler sees them. Calling it twice is harmless.

    Done in the record factory, because a filter on the parent logger would not see records of its children.
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
            record.msg, record.args = redact_foreign(record.getMessage()), ()
        return record

    logging.setLogRecordFactory(make_redacted)
