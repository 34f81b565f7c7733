"""What workers say about attempts: claims, results, failures, heartbeats; the fast path on PostgreSQL."""
