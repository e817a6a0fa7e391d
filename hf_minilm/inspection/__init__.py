"""Looking inside: who looks at whom in a model that keeps its fast attention, and pictures of it."""

from .attention_maps import attention_maps
from .attention_view import attention_html, attention_svg

__all__ = ["attention_html", "attention_maps", "attention_svg"]
