"""Sign-ins: one session is one family of refresh tokens and all access tokens made from it."""
