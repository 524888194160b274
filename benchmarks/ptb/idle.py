"""A persistence that keeps nothing: what it costs to have PTB hand everything over."""

from __future__ import annotations

from typing import Any

from telegram.ext import DictPersistence

from sessionkit.ptb.persistence import DEFAULT_UPDATE_INTERVAL


class IdlePersistence(DictPersistence):
    """Takes whatever it is given, as often as ``SessionPersistence``, and does nothing with it."""

    def __init__(self) -> None:
        super().__init__(update_interval=DEFAULT_UPDATE_INTERVAL)

    async def update_user_data(self, user_id: int, data: Any) -> None:
        """Do nothing."""

    async def update_chat_data(self, chat_id: int, data: Any) -> None:
        """Do nothing."""

    async def update_bot_data(self, data: Any) -> None:
        """Do nothing."""

    async def update_callback_data(self, data: Any) -> None:
        """Do nothing."""

    async def update_conversation(self, name: str, key: Any, new_state: object | None) -> None:
        """Do nothing."""
