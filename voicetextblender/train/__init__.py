"""Joint speech-text fine-tuning."""
