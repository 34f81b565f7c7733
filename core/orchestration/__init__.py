"""What follows a transition: which steps start, wait, are skipped, or end the run."""
