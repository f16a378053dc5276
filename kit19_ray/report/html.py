"""The page as one HTML file that needs nothing else: tables, charts and style within."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #888; }
td { font-variant-numeric: tabular-nums; }
tr:hover td { background: #f5f5f5; }
img { max-width: 100%; }
blockquote { border-left: 4px solid #c00; margin: 1rem 0; padding: 0 1rem; }
@media (prefers-color-scheme: dark) {
  body { background: #111; color: #ddd; }
  th, td { border-color: #444; }
  tr:hover td { background: #222; }
  img { background: #fff; }
}
"""


def render(markdown: str, charts: Mapping[str, bytes], title: str) -> str:
    """The document.

    Args:
        markdown: the page; HTML within it is shown as text.
        charts: PNGs by the file names that the page's images have.
    """
    from markdown_it import MarkdownIt

    body = str(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))
    for name, png in charts.items():
        data = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        body = body.replace(f'src="{name}"', f'src="{data}"')
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n{body}</body>\n</html>\n"
    )
