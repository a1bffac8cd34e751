"""Other libraries' checkpoints of the four architectures, read and written."""

from mudit.models.layouts.layout import Exchange, Layout, Row

__all__ = ["Exchange", "Layout", "Row"]
