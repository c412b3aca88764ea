"""What a model's name is enough for."""

from distil.api.names import get_tokenizer, get_vocab_size

__all__ = ["get_tokenizer", "get_vocab_size"]
