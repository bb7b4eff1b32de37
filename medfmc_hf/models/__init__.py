"""From a backbone and the name of a method to a model: loading, finding its parts, adapting, saving."""
