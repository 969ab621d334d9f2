"""Pages and numbers in a form that golden files can hold: the same on every machine, and short."""

from __future__ import annotations

from html.parser import HTMLParser


class Outline(HTMLParser):
    """A page as an indented list of its elements with their text, without drawings, styles, scripts
    and what scripts put in place."""

    VOID = frozenset(("meta", "input", "br", "wbr"))
    HIDDEN = frozenset(("svg", "style", "script", "template"))
    KEPT = frozenset(("id", "class", "scope", "role", "aria-label", "href", "for", "type", "value", "hidden"))

    def __init__(self, html):
        super().__init__()
        self.depth, self.hidden, self.lines = 0, 0, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if not self.hidden:
            kept = "".join(f" {name}={value}" for name, value in attrs if name in self.KEPT)
            self.lines.append("  " * self.depth + f"<{tag}{kept}>")
        if tag not in self.VOID:
            self.depth += 1
        self.hidden += tag in self.HIDDEN

    def handle_endtag(self, tag):
        self.hidden -= tag in self.HIDDEN
        self.depth -= tag not in self.VOID

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_data(self, data):
        if data.strip() and not self.hidden:
            self.lines.append("  " * self.depth + " ".join(data.split()))


def outline(html):
    """The page's outline as text."""
    return "\n".join(Outline(html).lines) + "\n"


def rounded(value):
    """The same with floats of nine digits, for the last ones differ between machines."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list) else value
