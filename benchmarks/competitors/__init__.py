"""Who is measured: each knows how to run a chain and a fan-out in its own idiom."""
