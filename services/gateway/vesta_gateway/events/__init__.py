"""The live events of a project: followed, replayed, handed to watchers."""
