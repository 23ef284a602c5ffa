"""The server from outside: real clients, resource servers, attacks on the wire, two processes, the clock."""
