"""Other libraries' checkpoints of the four architectures, read and written."""

from mudit.models.layouts.files import EXCHANGES, export_checkpoint, import_checkpoint
from mudit.models.layouts.layout import Exchange, Layout, Row

__all__ = ["EXCHANGES", "Exchange", "Layout", "Row", "export_checkpoint", "import_checkpoint"]
