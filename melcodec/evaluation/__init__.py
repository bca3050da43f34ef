"""How good a tokenizer is, and how two of them differ: figures, tables, a page."""
