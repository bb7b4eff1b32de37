"""From an image file to pixels: decoding, range, resizing, augmentation, and the stores of what was made. No other room knows pixels."""
