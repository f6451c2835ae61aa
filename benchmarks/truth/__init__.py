"""Are the method's claims true in our hands? Scripts that measure it, one a table; each leaves its numbers as JSON."""
