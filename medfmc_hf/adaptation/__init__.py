"""From a method's name to an adapted model, and back: methods, train-free heads, saving and loading."""
