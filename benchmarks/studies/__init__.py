"""Studies of quality: targets, the audit against known digits, the order of samples."""
