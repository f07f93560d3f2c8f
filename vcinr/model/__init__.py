"""A trained model: in hand, in its folder, and where it is found."""
