"""The environment's proxies: kept out of what is asked of this machine, and one message where one cannot be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kit19_ray.errors import UserError

_NAMES = tuple(name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (upper, upper.lower()))


def spare_loopback() -> None:
    """Keeps proxies out of what is asked of this machine: a server on 127.0.0.1 is not there for a proxy."""
    if not _set():
        return
    for name in ("no_proxy", "NO_PROXY"):
        spared = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*spared, "127.0.0.1", "localhost", "::1"]))


@contextmanager
def usable_proxies() -> Iterator[None]:
    """A block that makes an httpx client, which reads the environment's proxies.

    Raises:
        UserError: one of them cannot be used. Its value, which may hold a password, is not shown: httpx takes a part
            of one for a port.
    """
    import httpx

    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{', '.join(_set())}: a SOCKS proxy needs the package socksio", hint="pip install 'httpx[socks]'"
        ) from error
    except (httpx.InvalidURL, ValueError) as error:
        raise UserError(
            f"{', '.join(_set())}: not the address of a proxy: http://, https:// or socks5://, host, port",
            hint="in a user's name or a password write %2F for /, %40 for @, %3A for :, %23 for #",
        ) from error


def _set() -> list[str]:
    return [name for name in _NAMES if os.environ.get(name)]
