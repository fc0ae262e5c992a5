"""Studies of quality rather than speed: targets, fills, the audit against known digits, the order of samples."""
