"""Pictures as files: PNG for cards and slides, SVG where letters and lines must stay sharp."""

import warnings
from pathlib import Path
from typing import Any

FORMATS = (".png", ".svg")


def refuse_other_formats(path: Path) -> None:
    """Raise ValueError for the name of a picture that is neither PNG nor SVG."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"picture ({path}) must end in .png or .svg; give another name.")


def new_figure(width: float, height: float) -> Any:
    """Make a figure of a size in inches that no window and no global state belongs to."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_picture(figure: Any, path: Path, *, dots_per_inch: int = 130) -> None:
    """Write a figure; equal figures give equal files."""
    from matplotlib import rc_context

    # In an SVG text stays text, which a browser draws in a font that has its letters.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "hf_minilm"}
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    with rc_context(settings), warnings.catch_warnings():
        # A letter that the font lacks is a box in a PNG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=dots_per_inch, metadata=metadata)
