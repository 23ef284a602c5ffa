"""People: their accounts, their passwords, and who may sign in."""
