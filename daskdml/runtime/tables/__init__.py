"""Tables that ranks share: read and added to at any time, and lost with no worker."""
