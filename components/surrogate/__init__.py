"""Which subsets are estimated, and what the estimates say about which datasets help each other."""
