"""From an image file to pixels: decoding, resizing, normalising, augmentation and the pixel caches. No other room handles pixels."""
