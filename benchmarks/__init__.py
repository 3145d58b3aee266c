"""What the platform does in figures, beside those of others: `make bench`. Each file says what it measures."""
