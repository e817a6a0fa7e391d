"""How fast and in how much memory our models work beside the peers that a user would take otherwise."""
