"""Bounds of the variational autoencoder (chapter 1)."""

__all__: list[str] = []
