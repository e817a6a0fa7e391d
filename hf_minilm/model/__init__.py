"""The model: what travels to the Hub. Start with attention.py and positions.py."""
