"""URLs as they may be shown: a password, a token or a signed query stays out of output, errors and cards."""

from __future__ import annotations


def without_secrets(url: str) -> str:
    """`url` without userinfo, query and fragment."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    rest = rest.partition("#")[0].partition("?")[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
