"""Looking inside: who looks at whom in a model that keeps its fast attention, and pictures of it."""

from .attention_maps import attention_maps
from .attention_page import attention_page
from .attention_view import attention_svg
from .reading import read_text
from .rollout import rollout

__all__ = ["attention_maps", "attention_page", "attention_svg", "read_text", "rollout"]
