"""costd: admission control for what AI agents spend."""

__version__ = "0.1.0"
