"""What falls due: one file for each kind, which finds it and acts on it."""
