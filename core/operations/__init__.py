"""What people ask for: the verbs on runs and steps, each in one transaction."""
