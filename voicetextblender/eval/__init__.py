"""What the model hears, and what it forgot."""
