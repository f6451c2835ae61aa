"""Which other datasets should be trained along with one: leave-one-out, forward selection, random-subset scores."""
