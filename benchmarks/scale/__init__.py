"""A store at the size of ImageNet-1k: writing it, reading an epoch, requests to a bucket."""
