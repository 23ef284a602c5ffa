"""The command line: exit statuses, stdout for the answer and nothing else, and what the commands do."""
