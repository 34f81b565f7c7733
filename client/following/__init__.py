"""Following runs: every event once and in order, for threads and for asyncio."""
