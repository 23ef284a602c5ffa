"""What /authorize and /par are made of: a request, how it may come, where its answer goes (RFC 6749 §4.1)."""
