"""What runs in a pool's child, around the body of a step."""
