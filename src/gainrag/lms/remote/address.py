"""`http://HOST:PORT/v1#NAME`: where an engine listens, and which of its models is meant.

An address is written into files, logs and errors, so it must hold no secret: a key comes from the environment alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from gainrag.errors import ConfigError

SCHEMES = ("http://", "https://")
_EXAMPLE = "write http://HOST:PORT/v1#NAME"


@dataclass(frozen=True)
class Address:
    """An endpoint.

    base: the URL of its API, without a slash at the end: http://localhost:8000/v1.
    name: of the model, as the engine calls it.
    """

    base: str
    name: str

    def __str__(self) -> str:
        return f"{self.base}#{self.name}"

    def url(self, path: str) -> str:
        """The URL of a path: "chat/completions" lies below the base, "/tokenize" on the server itself, where engines
        have what is no part of the OpenAI API.

        >>> Address("http://localhost:8000/v1", "m").url("/tokenize")
        'http://localhost:8000/tokenize'
        """
        return f"{self.base.removesuffix('/v1')}{path}" if path.startswith("/") else f"{self.base}/{path}"


def is_endpoint(model: str) -> bool:
    """Whether a model's name is that of an endpoint."""
    return model.lower().startswith(SCHEMES)


def parse(model: str, base_url: str | None = None) -> Address:
    """Take `URL#NAME` apart, or put `NAME` and its base URL together.

    >>> parse("http://localhost:8000/v1#org/model").name
    'org/model'
    >>> str(parse("org/model", "http://localhost:8000/v1/"))
    'http://localhost:8000/v1#org/model'

    Raises:
        ConfigError: it is no URL, holds a secret, or names no model.
    """
    if base_url is not None and is_endpoint(model):
        raise ConfigError("model and base_url both hold an address", where="llm", hint="give base_url alone, or none")
    url, mark, name = (base_url, "#", model) if base_url is not None else model.partition("#")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # it may hold a password: it is not shown
        raise ConfigError("the address is no URL", where="llm", hint=_EXAMPLE) from None
    if parts.username is not None or parts.password is not None or parts.query:
        hint = "name the environment variable that holds the key: api_key_env"
        raise ConfigError("the address holds a user, a password or a query", where=f"llm {host}", hint=hint)
    if not is_endpoint(url) or not host or any(c.isspace() for c in url) or "#" in url:
        raise ConfigError("the address is no URL", where=f"llm {url}", hint=_EXAMPLE)
    if not parts.path.strip("/"):
        hint = f"most engines listen at {url.rstrip('/')}/v1"
        raise ConfigError("the address has no path", where=f"llm {url}", hint=hint)
    if not mark or not name.strip():
        hint = f"put it behind the address: {url.rstrip('/')}#NAME; GET {url.rstrip('/')}/models lists what is there"
        raise ConfigError("the address names no model", where=f"llm {url}", hint=hint)
    return Address(url.rstrip("/"), name.strip())
