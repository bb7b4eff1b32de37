"""PEFT tuners for vision models that PEFT lacks."""
