"""State changes on Redis pub/sub: their CloudEvents form, the publisher and the subscriber."""
