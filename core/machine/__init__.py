"""The one write path: a locked run, its edges and guards, and the history rows that each transition writes."""
