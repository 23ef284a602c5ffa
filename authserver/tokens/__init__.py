"""Access tokens, and whether one has been revoked."""
