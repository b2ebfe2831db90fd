"""The agreement's Markdown as HTML: written by stewards, cleaned all the same."""

from __future__ import annotations

import markdown
import nh3
from django.utils.safestring import SafeString, mark_safe

TAGS = {"h2", "h3", "h4", "p", "ol", "ul", "li", "strong", "em", "code", "blockquote", "hr", "br"}
TAGS |= {"a", "table", "thead", "tbody", "tr", "th", "td"}


def as_html(text: str) -> SafeString:
    """Return the text as HTML that holds no script, style, image, form or unsafe address."""
    raw = markdown.markdown(text, extensions=["tables"], output_format="html")
    # The page has its own first heading: those of the text begin below it.
    for level in (3, 2, 1):
        raw = raw.replace(f"<h{level}>", f"<h{level + 1}>").replace(
            f"</h{level}>", f"</h{level + 1}>"
        )
    clean = nh3.clean(raw, tags=TAGS, attributes={"a": {"href"}}, url_schemes={"https", "mailto"})
    return mark_safe(clean)  # noqa: S308 - nh3 has just made it safe
