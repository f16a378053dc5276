"""The playground: one HTML file of the package, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files

from starlette.responses import Response


@cache
def examples() -> list[dict[str, str]]:
    """An instruction and an input of each of KIT-19's tasks, in sentences of our own."""
    found: list[dict[str, str]] = json.loads((files("kit19_ray.serve") / "examples.json").read_text(encoding="utf-8"))
    return found


@cache
def html() -> str:
    """The page."""
    page = (files("kit19_ray.serve") / "playground.html").read_text(encoding="utf-8")
    # Within a script, so that a `</script>` in an example could not end it.
    return page.replace("__EXAMPLES__", json.dumps(examples(), ensure_ascii=False).replace("</", "<\\/"))


@cache
def policy() -> str:
    """A Content-Security-Policy that allows the page's own script and style, by their hashes, and this server."""
    sources = {}
    for tag in ("script", "style"):
        hashes = [
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            for text in re.findall(rf"<{tag}>(.*?)</{tag}>", html(), re.DOTALL)
        ]
        sources[tag] = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def response() -> Response:
    """The page with its headers."""
    headers = {
        "Content-Security-Policy": policy(),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Response(html(), media_type="text/html", headers=headers)
