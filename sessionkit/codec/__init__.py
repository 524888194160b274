"""Values to bytes and back: what goes in comes out, equal and of the same type, or is refused."""

from sessionkit.codec.limits import Limits
from sessionkit.codec.msgpack import MsgpackCodec
from sessionkit.codec.protocol import Codec

__all__ = ["Codec", "Limits", "MsgpackCodec"]
