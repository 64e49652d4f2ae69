"""Towers, fusion, encoder and Siamese scorer."""
