"""What is made of scores: intervals, comparisons, the challenge's number and its submissions."""
