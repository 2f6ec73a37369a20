"""What the gateway and the workers share, and mr_core must not know."""
