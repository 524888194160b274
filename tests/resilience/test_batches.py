"""What becomes of a batch of which the primary has taken a part."""

from __future__ import annotations

import pytest

from sessionkit.errors import Applied, StoreError, StoreTimeout, StoreUnavailable
from sessionkit.resilience.batches import delete_each, finish_puts
from sessionkit.store import Put, Receipt, new_version


async def test_one_that_is_replaced_says_itself_whether_it_may_have_arrived() -> None:
    batch = [Put("key", b"first", write_id=new_version()), Put("key", b"last", write_id=new_version())]
    maybe = StoreTimeout("no answer", applied=Applied.MAYBE)
    poison = StoreUnavailable("poison", temporary=False)

    async def written(at: int, _: Receipt) -> Receipt:
        raise AssertionError(at)

    async def refused(at: int, _: StoreError) -> Receipt:
        assert at == 1
        raise poison

    ends = await finish_puts(batch, [maybe, StoreUnavailable("no")], written, refused)
    assert ends == [maybe, poison]

    async def taken(at: int, _: StoreError) -> Receipt:
        assert at == 1
        version = batch[at].write_id
        assert version is not None
        return Receipt(version)

    ends = await finish_puts(batch, [maybe, StoreUnavailable("no")], written, taken)
    assert [end.version for end in ends if isinstance(end, Receipt)] == [put.write_id for put in batch]


async def test_deletions_that_end_half_way_say_so() -> None:
    async def delete(key: str) -> bool:
        if key == "b":
            raise StoreUnavailable("no")
        return True

    with pytest.raises(StoreError) as caught:
        await delete_each(["a", "b"], delete)
    assert caught.value.applied is Applied.MAYBE
    with pytest.raises(StoreError) as caught:
        await delete_each(["b"], delete)
    assert caught.value.applied is Applied.NO
