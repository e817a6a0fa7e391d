"""Small language models of your own for Hugging Face transformers."""

__version__ = "0.1.0.dev0"
