"""Secrets in addresses and settings, so that no manifest, log or error line shows one and no fingerprint knows one.

>>> mask("redis://:hunter2@host/0 and s3://bucket/x?access_key=abc&n=2")
'redis://:***@host/0 and s3://bucket/x?access_key=***&n=2'
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"
_NAME = (
    r"[\w.%-]*(?:passw(?:or)?d|passphrase|\bpwd|secret|(?<!max_)token|credential|signature|\bsig|\bauth|api_?key|access_?key"
    r"|account_?key|private_?key|\bkey)"
)
_PASSWORD = re.compile(r"(://[^\s/?#'\"<>@:]*:)(?!\d+[/?#])[^\s?#'\"<>@]+@")
"""Behind a user. A port has digits and a slash behind it; a slash in a password ought to be %2F, and often is not."""
_TOKEN = re.compile(r"(https?://)[^\s/?#'\"<>@:]+@")
_QUERY = re.compile(rf"([?&;]{_NAME}=)[^&;#\s'\"]+", re.IGNORECASE)
_SETTING = re.compile(rf"^{_NAME}$", re.IGNORECASE)


def mask(text: str) -> str:
    """The text with the passwords of all addresses, and the values of their secret parameters, hidden."""
    return _QUERY.sub(rf"\1{HIDDEN}", _TOKEN.sub(rf"\1{HIDDEN}@", _PASSWORD.sub(rf"\1{HIDDEN}@", text)))


def masked(value: Any) -> Any:
    """JSON-ready values with their secrets hidden: in every text, and what a key of a secret's name holds as text."""
    if isinstance(value, dict):
        return {
            key: HIDDEN if isinstance(inner, str) and inner and _SETTING.match(str(key)) else masked(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    return mask(value) if isinstance(value, str) else value
