"""How datasets become groups: exact search, SDP, rounding, local search and the choice of m."""
