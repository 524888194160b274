"""Validation sessions: one user's progress through a few steps, ended by silence."""

from sessionkit.service.merging import merge_sessions
from sessionkit.service.service import SessionService
from sessionkit.service.session import Session, SessionId

__all__ = ["Session", "SessionId", "SessionService", "merge_sessions"]
