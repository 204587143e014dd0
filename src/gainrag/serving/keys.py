"""Who may ask: keys from the environment, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Sequence

from gainrag.errors import ConfigError

VARIABLE = "GAINRAG_SERVE_KEYS"
# What answers without a key: a check of health has none.
OPEN = ("/health", "/ready")


def keys_of_environment() -> list[str]:
    """The keys in GAINRAG_SERVE_KEYS, separated by commas; none where it is not set.

    Raises:
        ConfigError: it is set and holds no key, or a key that no header can carry.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return []
    keys = [key.strip() for key in given.split(",") if key.strip()]
    if not keys:
        raise ConfigError("is set and holds no key", where=VARIABLE, hint="unset it, or list keys with commas")
    if not all(key.isascii() and key.isprintable() for key in keys):
        what = "a key has characters that no header can carry"
        raise ConfigError(what, where=VARIABLE, hint="use letters and digits")
    return keys


def is_allowed(authorization: str | None, keys: Sequence[str]) -> bool:
    """Whether a header carries one of the keys: as a bearer token, or as the password of a browser's own form.

    >>> is_allowed("Bearer b", ["a", "b"]), is_allowed("Bearer c", ["a", "b"]), is_allowed(None, [])
    (True, False, True)
    """
    if not keys:
        return True
    scheme, _, value = (authorization or "").partition(" ")
    sent = value.strip()
    if scheme.lower() == "basic":
        try:
            sent = base64.b64decode(sent, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            sent = ""
    # Every key is compared, and each in the same time whatever was sent.
    found = [hmac.compare_digest(sent.encode(), key.encode()) for key in keys]
    return any(found) and scheme.lower() in ("bearer", "basic")
