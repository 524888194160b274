from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sessionkit.codec import MsgpackCodec
from sessionkit.keys import KeySpace
from sessionkit.ptb import SessionPersistence
from sessionkit.service import SessionService

if TYPE_CHECKING:
    import pytest

    from sessionkit.cli.child import BotProcess
    from sessionkit.store import SessionStore
    from sessionkit.testing.botapi import BotApiServer, BotMessage, Call, ScriptedUser

ADA = 42


async def hear(user: ScriptedUser, expected: str) -> BotMessage:
    """Return the bot's next message with this text.

    Others may come first: an update that the killed bot had not confirmed comes again, and is answered again.
    """
    while expected not in (message := await user.reply(timeout=30)).text:
        assert message.text, "the bot said nothing"
    return message


async def deposits(store: SessionStore) -> Any:
    record = await store.get(KeySpace("user_data").key(ADA))
    return None if record is None else MsgpackCodec().decode(record.value)["deposits"]


async def test_killed_right_after_each_of_its_replies_it_goes_on_from_there(
    api: BotApiServer, bot: BotProcess, store: SessionStore
) -> None:
    """The bot is dead before it learns that its reply arrived; nothing it does after the reply can count."""
    sessions = SessionService(store)
    conversations = SessionPersistence(store)
    ada = api.user(ADA, first_name="Ada")
    kills = []
    doomed = asyncio.Event()

    @api.on_call
    async def kill(call: Call) -> None:
        if call.method == "sendMessage" and doomed.is_set():
            doomed.clear()
            kills.append(call.params["text"])
            await bot.kill()

    steps = [
        ("/depot", "Send me the audio", "audio"),
        (None, "Audio saved", "amount"),
        ("150", "Amount 150 saved", "confirm"),
        ("yes", "Deposit 1 of 150 confirmed", None),
    ]
    for text, answer, state in steps:
        await bot.start()
        doomed.set()
        await (ada.send(text) if text is not None else ada.send_audio())
        await hear(ada, answer)
        session = await sessions.get_session(ADA, renew=False)
        conversation = await conversations.get_conversations("depot")
        assert (session and session.state) == state
        assert conversation == ({} if state is None else {(ADA, ADA): state})
    assert len(kills) == len(steps)
    [deposit] = await deposits(store)
    assert deposit["amount"] == Decimal(150)
    assert deposit["audio"]

    await bot.start()
    await ada.send("/depot")
    await hear(ada, "Send me the audio")


async def test_killed_with_an_update_in_its_hands_it_gets_it_again(
    api: BotApiServer, bot: BotProcess, store: SessionStore
) -> None:
    """The bot is killed when it is given an update, before it can confirm it: Telegram gives it again."""
    ada = api.user(ADA, first_name="Ada")
    doomed = asyncio.Event()

    @api.on_call
    async def kill(call: Call) -> None:
        if call.method == "getUpdates" and call.answer and call.answer.get("result") and doomed.is_set():
            doomed.clear()
            await bot.kill()
            await bot.start()

    await bot.start()
    for send, answer in (
        (ada.send("/depot"), "Send me the audio"),
        (ada.send_audio(), "Audio saved"),
        (ada.send("19,99"), "Amount 19.99 saved"),
        (ada.send("yes"), "confirmed"),
    ):
        doomed.set()
        await send
        await hear(ada, answer)
        assert not doomed.is_set()
    [deposit] = await deposits(store)
    assert deposit["amount"] == Decimal("19.99")


async def test_silence_times_a_deposit_out(
    api: BotApiServer, bot: BotProcess, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONKIT_IDLE_TIMEOUT", "0.2")
    sessions = SessionService(store)
    ada = api.user(ADA, first_name="Ada")
    await bot.start()
    await ada.send("/depot").expects("Send me the audio", timeout=30)
    while await sessions.get_session(ADA, renew=False) is not None:  # noqa: ASYNC110 - nothing tells of an expiry
        await asyncio.sleep(0.02)
    await ada.send_audio().expects("timed out")
    await ada.send("/cancel").expects("No deposit is open")


async def test_what_a_user_may_do_besides(api: BotApiServer, bot: BotProcess, store: SessionStore) -> None:
    sessions = SessionService(store)
    ada, bob = api.user(ADA, first_name="Ada"), api.user(7, first_name="Bob")
    await bot.start()
    await ada.send("hello").expects("No deposit is open", timeout=30)
    await ada.send("/depot").expects("Send me the audio")
    await ada.send("150").expects("Send me the audio")
    await ada.send_voice().expects("Audio saved")
    for text in ("a lot", "-5", "0", "NaN", "1e99", ""):
        await ada.send(text or "?").expects("An amount is a number")
    await bob.send("/depot").expects("Send me the audio")
    await ada.send("12.50").expects("Amount 12.50 saved")
    await ada.send("maybe").expects("yes or no")
    await ada.send("/depot").expects("Send me the audio")
    await ada.send_audio().expects("Audio saved").send("1").expects("Amount 1 saved")
    await ada.send("no").expects("Cancelled")
    assert await sessions.get_session(ADA) is None
    assert await deposits(store) is None
    await bob.send("/cancel").expects("Cancelled")
    assert await sessions.count_sessions() == 0
