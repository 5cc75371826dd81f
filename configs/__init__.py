"""The shipped configurations; an installed package has them inside it."""
