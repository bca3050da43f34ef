"""What training minimises: terms by name, and an adversary that learns beside the model."""
