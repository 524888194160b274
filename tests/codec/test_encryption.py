"""What is encrypted is opened by its key, under its storage key, as it was written, or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import struct
import sys
import traceback
from base64 import b64encode, urlsafe_b64encode
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionkit.codec import EncryptionKey, Keyring, Limits, MsgpackCodec, new_key, read_info
from sessionkit.codec.envelope import COMPRESSED, ENCRYPTED, HEADER_BYTES, seal
from sessionkit.errors import CodecError, ConfigurationError, CorruptRecord, DecryptionError, RecordTooLarge
from sessionkit.testing.equality import exactly_equal
from sessionkit.testing.strategies import values

SECRET = bytes(range(32))
OTHER = bytes(range(32, 64))
KEY = "telegram_bot:session:1"
VALUE = {"card": "4111 1111", "steps": (1, 2)}

old, new = EncryptionKey("2024", SECRET), EncryptionKey("2025", OTHER)
codec = MsgpackCodec(keyring=Keyring([old]))


def reseal(data: bytes, head: bytes | None = None, payload: bytes | None = None) -> bytes:
    """Return a record with other parts and a checksum that matches, as a forger would make it."""
    head = data[:5] if head is None else head
    payload = data[HEADER_BYTES:] if payload is None else payload
    return head + struct.pack(">I", crc32(payload, crc32(head))) + payload


@given(values(), st.sampled_from([1, 16_384]))
def test_what_goes_in_comes_out(value: object, compress_from: int) -> None:
    encrypting = MsgpackCodec(keyring=Keyring([old]), compress_from=compress_from)
    data = encrypting.encode(value, key=KEY)
    assert exactly_equal(encrypting.decode(data, key=KEY), value)


def test_nothing_of_the_value_is_to_be_seen() -> None:
    data = codec.encode(VALUE, key=KEY)
    for word in (b"card", b"4111", b"steps", KEY.encode()):
        assert word not in data
    assert codec.encode(VALUE, key=KEY) != data, "a nonce of its own"
    info = read_info(data)
    assert (info.schema, info.compressed, info.key_id) == (1, False, "2024")
    assert info.written is not None


def test_large_values_are_compressed_first() -> None:
    data = codec.encode(["so it goes"] * 10_000, key=KEY)
    assert len(data) < 2000
    assert read_info(data).compressed
    without = MsgpackCodec(keyring=Keyring([old]), compression="off")
    assert len(without.encode(["so it goes"] * 10_000, key=KEY)) > 100_000
    assert without.decode(data, key=KEY) == ["so it goes"] * 10_000


def test_packing_the_same_value_gives_the_same_bytes() -> None:
    assert codec.pack(VALUE) == codec.pack(dict(VALUE))
    assert codec.unwrap(codec.encode(VALUE, key=KEY), key=KEY) == codec.pack(VALUE)


def test_the_first_key_writes_and_all_read() -> None:
    data = codec.encode(VALUE, key=KEY)
    rotating = MsgpackCodec(keyring=Keyring([new, old]))
    assert rotating.decode(data, key=KEY) == VALUE
    again = rotating.encode(VALUE, key=KEY)
    assert read_info(again).key_id == "2025"
    with pytest.raises(DecryptionError, match="encrypted by the key '2025', which is not in this keyring"):
        codec.decode(again, key=KEY)


def test_a_record_moved_to_another_key_is_refused() -> None:
    data = codec.encode(VALUE, key=KEY)
    for other in ("telegram_bot:session:2", "", KEY + "0", KEY.upper()):
        with pytest.raises(DecryptionError, match="written for another storage key"):
            codec.decode(data, key=other)


def test_the_storage_key_is_asked_for() -> None:
    for call in (lambda: codec.encode(VALUE), lambda: codec.decode(codec.encode(VALUE, key=KEY))):
        with pytest.raises(ConfigurationError, match="pass encode, decode, wrap and unwrap the key"):
            call()


def test_another_key_of_that_id_is_refused() -> None:
    data = codec.encode(VALUE, key=KEY)
    with pytest.raises(DecryptionError, match="does not open"):
        MsgpackCodec(keyring=Keyring([EncryptionKey("2024", OTHER)])).decode(data, key=KEY)


def test_replayed_under_another_key_id_it_is_refused() -> None:
    both = MsgpackCodec(keyring=Keyring([new, old, EncryptionKey("twin", SECRET)]))
    payload = codec.encode(VALUE, key=KEY)[HEADER_BYTES:]
    data = codec.encode(VALUE, key=KEY)
    for id_ in (b"2025", b"twin"):  # the twin has the same secret, and the id is vouched for all the same
        with pytest.raises(DecryptionError):
            both.decode(reseal(data, payload=payload[:1] + id_ + payload[5:]), key=KEY)


def test_a_codec_without_keys_says_which_it_lacks() -> None:
    with pytest.raises(
        DecryptionError, match="by the key '2024', and this codec has no keys: set SESSIONKIT_"
    ):
        MsgpackCodec().decode(codec.encode(VALUE, key=KEY), key=KEY)


def test_strict_refuses_what_is_not_encrypted() -> None:
    for plain in (MsgpackCodec().encode(VALUE), MsgpackCodec(compress_from=1).encode([VALUE] * 50)):
        with pytest.raises(DecryptionError, match=r"not encrypted.*sessionkit rekey"):
            codec.decode(plain, key=KEY)
        mixed = MsgpackCodec(keyring=Keyring([old]), strict=False)
        assert mixed.decode(plain, key=KEY) in (VALUE, [VALUE] * 50)
    damaged = bytearray(MsgpackCodec().encode(VALUE))
    damaged[-1] ^= 1
    with pytest.raises(CorruptRecord):
        codec.decode(bytes(damaged), key=KEY)
    with pytest.raises(CorruptRecord):
        codec.decode(b"", key=KEY)


@pytest.mark.parametrize("flags", [0, COMPRESSED, COMPRESSED | ENCRYPTED])
def test_no_flag_can_be_flipped(flags: int) -> None:
    data = codec.encode(VALUE, key=KEY)
    forged = reseal(data, head=data[:2] + bytes([flags]) + data[3:5])
    with pytest.raises(DecryptionError):
        codec.decode(forged, key=KEY)
    with pytest.raises(CodecError):  # what is taken for a body is none
        MsgpackCodec(keyring=Keyring([old]), strict=False).decode(forged, key=KEY)


def test_the_schema_cannot_be_changed() -> None:
    data = MsgpackCodec(keyring=Keyring([old]), schema=2).encode(VALUE, key=KEY)
    newest = MsgpackCodec(keyring=Keyring([old]), schema=3)
    for schema in (1, 3):
        with pytest.raises(DecryptionError):
            newest.decode(reseal(data, head=data[:3] + struct.pack(">H", schema)), key=KEY)


def test_no_bit_can_be_changed() -> None:
    data = codec.encode(VALUE, key=KEY)
    for bit in range(HEADER_BYTES * 8, len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptRecord):  # by accident
            codec.decode(bytes(changed), key=KEY)
        with pytest.raises((DecryptionError, CorruptRecord)):  # on purpose
            codec.decode(reseal(bytes(changed)), key=KEY)


def test_every_truncation_is_noticed() -> None:
    data = codec.encode(VALUE, key=KEY)
    for length in range(len(data)):
        with pytest.raises(CorruptRecord):
            codec.decode(data[:length], key=KEY)
        with pytest.raises((DecryptionError, CorruptRecord)):
            codec.decode(reseal(data[:length], data[:5], data[HEADER_BYTES:length]), key=KEY)


def test_a_record_has_its_bound_encrypted_too() -> None:
    tight = MsgpackCodec(keyring=Keyring([old]), limits=Limits(stored_bytes=1000), compression="off")
    assert len(tight.encode("x" * 900, key=KEY)) <= 1000
    with pytest.raises(RecordTooLarge, match=f"{KEY}: 10.. bytes encrypted"):
        tight.encode("x" * 980, key=KEY)


def test_a_sealed_nothing_is_corrupt() -> None:
    keyring = Keyring([old])
    head = b"\xc1\x01\x02\x00\x01"
    with pytest.raises(CorruptRecord, match="holds nothing"):
        codec.decode(seal(keyring.encrypt(b"", head, KEY), 1, ENCRYPTED), key=KEY)


@given(st.binary(max_size=80))
def test_any_encrypted_bytes(payload: bytes) -> None:
    with pytest.raises((CorruptRecord, DecryptionError)):
        codec.decode(seal(payload, 1, ENCRYPTED), key=KEY)


@given(st.binary(max_size=40))
def test_what_only_a_holder_of_the_key_could_write_is_no_more_than_data(body: bytes) -> None:
    keyring = Keyring([old])
    for flags in (ENCRYPTED, ENCRYPTED | COMPRESSED):
        head = b"\xc1\x01" + bytes([flags]) + b"\x00\x01"
        with contextlib.suppress(CodecError):
            codec.decode(seal(keyring.encrypt(body, head, KEY), 1, flags), key=KEY)


def test_a_wrong_key_is_told_by_its_place() -> None:
    first = new_key("2026")
    for text, place in ((f"{first},x", "entry 2"), (f"{first}\n\n{new_key('a')}, x\n", "line 3")):
        with pytest.raises(ConfigurationError, match=f"^{place}: an encryption key reads id:base64"):
            Keyring.parse(text)


def test_new_keys_are_their_own() -> None:
    first, second = new_key(), new_key()
    assert first != second
    assert new_key("2026").startswith("2026:")
    keyring = Keyring.parse(f"{first}, {second}\n{new_key('third')}")
    assert keyring.first == first.partition(":")[0]
    for text in (first, second):
        EncryptionKey.parse(text)
    with pytest.raises(ConfigurationError, match="the id of an encryption key"):
        new_key("a b")


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
@pytest.mark.parametrize("padding", ["", "="])
def test_both_alphabets_of_base64_are_read(encode: Any, padding: str) -> None:
    secret = b"\xff\xfe\xfb" * 10 + b"\xff\xff"
    text = encode(secret).decode().rstrip("=") + padding
    data = MsgpackCodec(keyring=Keyring([EncryptionKey("a", secret)])).encode(1, key=KEY)
    assert MsgpackCodec(keyring=Keyring([EncryptionKey.parse(f"a:{text}")])).decode(data, key=KEY) == 1


WRONG = {
    "no id": b64encode(SECRET).decode(),
    "empty id": f":{b64encode(SECRET).decode()}",
    "id of other characters": f"a b:{b64encode(SECRET).decode()}",
    "id too long": f"{'a' * 33}:{b64encode(SECRET).decode()}",
    "no secret": "a:",
    "too short": f"a:{b64encode(SECRET[:16]).decode()}",
    "too long": f"a:{b64encode(SECRET * 2).decode()}",
    "no base64": f"a:{b64encode(SECRET).decode()[:-4]}!?",
    "base64 of odd length": f"a:{b64encode(SECRET).decode()[:-3]}",
    "hex": f"a:{SECRET.hex()}",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_wrong_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Keyring.parse(text)
    shown = "".join(traceback.format_exception(caught.value))
    for part in (SECRET.hex(), b64encode(SECRET).decode()[:8]):
        assert part not in shown
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_keyring_has_keys_of_different_ids() -> None:
    for keys in ([], [old, EncryptionKey("2024", OTHER)], [SECRET]):
        wrong: Any = keys
        with pytest.raises(ConfigurationError) as caught:
            Keyring(wrong)
        assert SECRET.hex() not in str(caught.value)
    with pytest.raises(ConfigurationError, match="there is no key in it"):
        Keyring.parse(" , ")


def test_no_repr_log_or_traceback_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    keyring = Keyring([old, new])
    assert repr(keyring) == "<Keyring '2024', '2025'>"
    assert repr(old) == "<EncryptionKey '2024'>"
    caplog.set_level(logging.DEBUG)
    texts = [str(keyring), f"{old!r} {old}", repr(codec), repr(vars(codec)), repr(vars(keyring))]
    data = codec.encode(VALUE, key=KEY)
    try:
        codec.decode(data, key="other")
    except DecryptionError as error:
        texts += traceback.TracebackException.from_exception(error, capture_locals=True).format()
    texts.append(caplog.text)
    for text in texts:
        for shown in (repr(SECRET)[2:-1], SECRET.hex(), b64encode(SECRET).decode(), "4111", "card"):
            assert shown not in text
    with pytest.raises(TypeError):
        pickle.dumps(old)


def test_without_cryptography_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigurationError, match=r"sessionkit\[crypto\]"):
        EncryptionKey("a", os.urandom(32))
