"""Codes that are stored: files of one utterance, folders of them, and stores of whole corpora; one reader for all."""
