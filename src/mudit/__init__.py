"""mudit: tune diffusion Transformers small and train them big, by μP, with numbers that show it."""

__version__ = "0.1.0"
