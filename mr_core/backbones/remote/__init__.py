"""A source model that only answers over HTTP: what is sent, what is read, and what it costs."""
