"""What the nodes of a cluster say of their slots, read from replies of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot

from sessionkit_redis.addresses import Address
from sessionkit_redis.slots import SLOTS, Claim, Redirection, SlotMap, read_redirection, slot_of
from sessionkit_redis.transport import ErrorReply

if TYPE_CHECKING:
    from sessionkit_redis.transport import Reply

ASKED = Address("asked", 7000)
HERE = Address("here", 7001)
THERE = Address("there", 7002)
HERE_NODE: list[Reply] = [b"here", 7001, b"id of here", []]
THERE_NODE: list[Reply] = [b"there", 7002, b"id of there", []]


@pytest.mark.parametrize("key", ["key", "{tag}key", "{}key", "a{b}c{d}", "{", "é", "x" * 4096])
def test_a_slot_is_that_of_the_specification(key: str) -> None:
    assert slot_of(key) == slot_of(key.encode()) == key_slot(key.encode())


def test_a_map_names_the_primary_of_each_slot() -> None:
    slots = SlotMap.read([[0, 99, HERE_NODE, THERE_NODE], [100, SLOTS - 1, THERE_NODE, HERE_NODE]], ASKED)
    assert [slots.owner(slot) for slot in (0, 99, 100, SLOTS - 1)] == [HERE, HERE, THERE, THERE]
    assert slots.primaries == [HERE, THERE]


def test_a_slot_that_no_node_serves_has_no_owner() -> None:
    slots = SlotMap.read([[5, 5, HERE_NODE]], ASKED)
    assert [slots.owner(slot) for slot in (4, 5, 6)] == [None, HERE, None]


def test_a_moved_slot_has_its_new_owner_and_no_other_has() -> None:
    slots = SlotMap.read([[0, SLOTS - 1, HERE_NODE]], ASKED)
    slots.move(5, THERE)
    assert [slots.owner(slot) for slot in (4, 5, 6)] == [HERE, THERE, HERE]
    assert slots.primaries == [HERE, THERE]


@pytest.mark.parametrize(
    ("node", "owner"),
    [
        ([b"127.0.0.1", 7001], Address("127.0.0.1", 7001)),
        ([b"127.0.0.1", 7001, b"id", [b"hostname", b"redis.example"]], Address("127.0.0.1", 7001)),
        ([b"::1", 7001, b"id"], Address("::1", 7001)),
        ([b"fe80::1%eth0", 7001, b"id"], Address("fe80::1%eth0", 7001)),
        ([b"redis.example", 7001, b"id"], Address("redis.example", 7001)),
        ([b"", 7001, b"id"], Address("asked", 7001)),
        ([None, 7001, b"id"], Address("asked", 7001)),
        ([b"?", 7001, b"id"], None),
        ([b"\xff", 7001, b"id"], None),
        ([b"here"], None),
        ([b"here", b"7001"], None),
        ([b"here", None], None),
        ([7001, b"here"], None),
        ([], None),
        (b"here:7001", None),
        (None, None),
        (ErrorReply("ERR", "ERR no"), None),
    ],
)
def test_a_node_is_where_it_says_or_where_it_was_asked(node: Reply, owner: Address | None) -> None:
    slots = SlotMap.read([[3, 4, node], [6, 7, HERE_NODE, node]], ASKED)
    assert [slots.owner(slot) for slot in range(2, 9)] == [None, owner, owner, None, HERE, HERE, None]
    assert slots.owner(SLOTS - 1) is None


@pytest.mark.parametrize(
    "part",
    [
        [],
        [0],
        [0, 1],
        [1, 0, THERE_NODE],
        [-1, 3, THERE_NODE],
        [0, SLOTS, THERE_NODE],
        [b"0", b"3", THERE_NODE],
        [0, None, THERE_NODE],
        b"0-3",
        None,
        7,
        {b"slots": [0, 3]},
        ErrorReply("ERR", "ERR no"),
    ],
)
def test_what_is_no_range_of_slots_is_left_out_and_the_rest_is_read(part: Reply) -> None:
    slots = SlotMap.read([part, [10, SLOTS - 1, HERE_NODE], part], ASKED)
    assert [slots.owner(slot) for slot in (0, 9, 10, SLOTS - 1)] == [None, None, HERE, HERE]
    assert slots.primaries == [HERE]


@pytest.mark.parametrize("reply", [None, b"", b"OK", 7, [], {}, ErrorReply("ERR", "ERR unknown command")])
def test_a_reply_of_another_kind_names_no_node(reply: Reply) -> None:
    assert SlotMap.read(reply, ASKED).primaries == []


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirection(3999, Address("127.0.0.1", 6381), True)),
        ("ASK 3999 127.0.0.1:6381", Redirection(3999, Address("127.0.0.1", 6381), False)),
        ("MOVED 0 redis.example:6381", Redirection(0, Address("redis.example", 6381), True)),
        ("MOVED 16383 ::1:6381", Redirection(16383, Address("::1", 6381), True)),
        ("ASK 3999 :6381", Redirection(3999, Address("asked", 6381), False)),
        ("MOVED", None),
        ("ASK", None),
        ("MOVED 3999", None),
        ("ASK 3999 127.0.0.1", None),
        ("ASK 3999 127.0.0.1:", None),
        ("ASK 3999 127.0.0.1:x", None),
        ("ASK 3999 127.0.0.1:-1", None),
        ("MOVED 16384 127.0.0.1:6381", None),
        ("MOVED -1 127.0.0.1:6381", None),
        ("MOVED ² 127.0.0.1:6381", None),
        pytest.param(f"MOVED {'1' * 5000} 127.0.0.1:6381", None, id="a slot without end"),
        pytest.param(f"MOVED 3999 127.0.0.1:{'1' * 5000}", None, id="a port without end"),
        ("MOVED 3999 127.0.0.1:65536", None),
        ("MOVED x 127.0.0.1:6381", None),
        ("MOVED 3999 127.0.0.1:6381 more", None),
        ("MOVEDON 3999 127.0.0.1:6381", None),
        ("ASKING 3999 127.0.0.1:6381", None),
        ("ERR MOVED 3999 127.0.0.1:6381", None),
        ("TRYAGAIN Multiple keys request during rehashing of slot", None),
        ("", None),
    ],
)
def test_a_redirection_is_read_or_is_none(text: str, meaning: Redirection | None) -> None:
    assert read_redirection(ErrorReply(text.partition(" ")[0], text), ASKED) == meaning


def nodes(*lines: str) -> bytes:
    """Return a reply to ``CLUSTER NODES``: a line for each flags and slots given."""
    template = "{:040x} 127.0.0.1:7000@17000 {} - 0 0 1 connected {}"
    parts = (line.partition(" ") for line in lines)
    return "\n".join(template.format(at, flags, slots) for at, (flags, _, slots) in enumerate(parts)).encode()


@pytest.mark.parametrize(
    ("reply", "claim", "served"),
    [
        (nodes("myself,master 0-5460"), Claim(("0-5460",)), 5461),
        (nodes("master 0-99", "myself,master 100-199 300"), Claim(("100-199", "300")), 101),
        (nodes("myself,master 7"), Claim(("7",)), 1),
        (nodes("myself,master"), Claim(), 0),
        (nodes("myself,slave", "master 0-16383"), Claim(), 0),
        (nodes("myself,master 0-9 [5->-0123abc]"), Claim(("0-9",), moving=True), 10),
        (nodes("myself,master 0-9 [12-<-0123abc]"), Claim(("0-9",), moving=True), 10),
        (nodes("myself,master [12-<-0123abc] [13-<-0123abc]"), Claim((), moving=True), 0),
        (nodes("myself,master 0-9", "master 10-99 [5->-0123abc]"), Claim(("0-9",)), 10),
        (nodes("master 0-16383"), Claim(), 0),
        (nodes("myself,master a-b 7 8- -9 16384"), Claim(("a-b", "7", "8-", "-9", "16384")), 2),
        (b"", Claim(), 0),
        (b"\n\n", Claim(), 0),
        (b"myself", Claim(), 0),
        (b"\xff\xfe", Claim(), 0),
        (None, Claim(), 0),
        (7, Claim(), 0),
        ([], Claim(), 0),
    ],
)
def test_a_claim_is_what_a_node_says_of_itself(reply: Reply, claim: Claim, served: int) -> None:
    assert Claim.read(reply) == claim
    assert Claim.read(reply).served == served
