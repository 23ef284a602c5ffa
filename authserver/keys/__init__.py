"""The keys that sign tokens: kept in the database, encrypted; announced before use, kept as long as they are needed."""
