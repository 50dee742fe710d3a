"""voicetextblender: joint speech-text fine-tuning of language models (arXiv 2410.17485)."""

__version__ = "0.1.0"
