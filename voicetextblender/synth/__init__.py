"""The data factory: training conversations made from text."""
