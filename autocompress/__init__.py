"""Automated joint neural-network compression."""
