"""Recipes: typed configurations of a training, with a reason for each choice. The built-in recipes are the YAML files of this package."""
