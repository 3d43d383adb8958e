"""The commands of `sigma`, by what one wants of them."""
