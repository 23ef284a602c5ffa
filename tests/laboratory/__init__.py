"""The fault laboratory: two servers, stores of their own, a fault on every edge, and a judge (docs/reliability.md)."""
