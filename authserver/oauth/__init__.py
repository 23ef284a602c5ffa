"""The OAuth 2.0 and OpenID Connect endpoints: one file each, one per grant."""
