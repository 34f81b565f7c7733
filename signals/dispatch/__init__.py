"""Messages out to the broker: step messages, interrupts, and the search for lost ones."""
