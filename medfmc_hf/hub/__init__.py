"""What reaches the Hub, and back: the data set, the metric and the models. Nothing here talks to the Hub unless it is asked to."""
