"""The commands of `loraloom`, grouped by when one needs them."""
