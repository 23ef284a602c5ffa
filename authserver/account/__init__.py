"""Accounts as JSON: POST /register, /users/me and what belongs to it."""

from fastapi import APIRouter

from authserver.account import me, register, sessions

router = APIRouter(tags=["Accounts"])
router.include_router(register.router)
router.include_router(me.router)
router.include_router(sessions.router)

__all__ = ["router"]
