"""What others get to see of a run: its card, the draws that belong together, and how to repeat it."""
