"""authserver: an OAuth 2.0 and OpenID Connect token server whose revocations stay revoked."""

__version__ = "0.1.0"
