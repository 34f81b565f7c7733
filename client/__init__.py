"""What producers and operators import: enqueue, the verbs, watch."""
