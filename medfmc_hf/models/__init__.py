"""Backbones: loading, finding the parts of their structure, and their image processors."""
