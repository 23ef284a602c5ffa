"""What operators see: log lines, metrics, and the middleware that notes every request."""
