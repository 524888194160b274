"""Records taken from one store to another, byte for byte, directly or in a file."""

from sessionkit.transfer.file import ExportFile, ExportWriter
from sessionkit.transfer.reading import SourceReader
from sessionkit.transfer.records import Digest, MovedRecord
from sessionkit.transfer.writing import TargetWriter, Transfer

__all__ = ["Digest", "ExportFile", "ExportWriter", "MovedRecord", "SourceReader", "TargetWriter", "Transfer"]
