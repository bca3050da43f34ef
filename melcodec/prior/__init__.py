"""Language models over codes: n-grams and transformers; training, scores, samples and entropy coding."""
