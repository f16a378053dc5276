from __future__ import annotations

from html.parser import HTMLParser

from kit19_ray.report import html

PNG = b"\x89PNG\r\n\x1a\nrest"


class Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_tables_and_charts_are_within() -> None:
    page = "# Runs\n\n| task | acc |\n| --- | --- |\n| copa | 61.2 ± 1.5 |\n\n![loss](loss.png)\n"
    text = html.render(page, {"loss.png": PNG}, "Runs <compared>")
    seen = Seen(text)
    assert {"h1", "table", "th", "td", "img", "style"} <= set(seen.tags)
    assert seen.links and all(link.startswith("data:image/png;base64,") for link in seen.links)
    assert "<title>Runs &lt;compared&gt;</title>" in text and "script" not in seen.tags
    assert text == html.render(page, {"loss.png": PNG}, "Runs <compared>")


def test_html_in_a_runs_name_is_text() -> None:
    text = html.render("# <script>alert(1)</script>\n", {}, "x")
    assert "script" not in Seen(text).tags and "&lt;script&gt;" in text
