"""One run: what it resolves to, what runs share, the loop, losses, cached features and frozen blocks."""

from .one_run import train

__all__ = ["train"]
