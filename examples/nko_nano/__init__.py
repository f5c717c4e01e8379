"""Generates the rows and the base model of the recipe nko-nano."""
